"""Where the C headers are."""

from pathlib import Path


def get_include() -> str:
    """The folder to give to a C compiler for ``#include "fastgru/engine.h"``.

    Examples
    --------
    >>> from pathlib import Path
    >>> import fastgru
    >>> Path(fastgru.get_include(), "fastgru/engine.h").exists()
    True
    """
    package = Path(__file__).resolve().parent
    installed = package / "include"
    return str(installed if installed.is_dir() else package.parent / "include")
