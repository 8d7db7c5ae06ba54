"""Paths of the engine's C files."""

from pathlib import Path


def get_include() -> str:
    """Return the folder to give to a C compiler for ``#include "fastgru/fastgru.h"``.

    Examples
    --------
    >>> from pathlib import Path
    >>> import fastgru
    >>> Path(fastgru.get_include(), "fastgru/fastgru.h").exists()
    True
    """
    return str(_folder("include"))


def get_sources() -> list[str]:
    """Return the C files of the engine, to compile and link with a program that includes its headers.

    Compile them with ``-ffp-contract=off``, and with ``-O3`` for speed.

    Examples
    --------
    >>> from pathlib import Path
    >>> import fastgru
    >>> "network.c" in [Path(file).name for file in fastgru.get_sources()]
    True
    """
    return sorted(map(str, _folder("src").glob("*.c")))


def _folder(name: str) -> Path:
    """A folder of the installed package, or of the repository."""
    package = Path(__file__).resolve().parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name
