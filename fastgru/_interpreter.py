"""The interpreters of a process, of which fastgru runs in one."""

from importlib import import_module

ONE = (
    "fastgru runs in one interpreter of a process, the one that imports NumPy and compiled modules first; "
    "this is another one. Use threads or processes in place of subinterpreters"
)


def is_another() -> bool:
    """True in a subinterpreter."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # from Python 3.13 on, and before
        try:
            interpreters = import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() != interpreters.get_main())
    return False
