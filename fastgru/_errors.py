"""Errors of model files, read and written."""

import importlib.util


class FormatError(ValueError):
    """A model file that cannot be read; the message names the file and what is wrong with it."""

    __module__ = "fastgru"  # the name that tracebacks show is the one to catch


def need(module: str, extra: str, what: str = "this file") -> None:
    """Fail if a module that an extra brings is not installed.

    Raises
    ------
    ImportError
        Names the module and the extra.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{module} is needed for {what}: pip install 'fastgru[{extra}]'", name=module)
