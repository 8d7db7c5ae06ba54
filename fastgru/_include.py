"""Where the C headers are."""

from pathlib import Path


def get_include() -> str:
    """The folder to give to a C compiler for ``#include "fastgru/engine.h"``."""
    package = Path(__file__).resolve().parent
    installed = package / "include"
    return str(installed if installed.is_dir() else package.parent / "include")
