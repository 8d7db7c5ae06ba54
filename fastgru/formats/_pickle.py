"""Pickles, looked through before PyTorch reads them.

Its `weights_only=True` runs no code, but still builds what a few bytes ask for: gigabytes, or a tuple of
tuples of tuples whose hash takes for ever, or crashes the interpreter.
"""

import pickletools
from typing import Any

from fastgru.formats._model import FormatError

LARGEST = 1000  # things in a tuple and in the tuples in it: hashing it takes as many steps
BY_NUMBER = ("builtins bytearray", "__builtin__ bytearray")  # makes as many bytes as it is told

MARK = 0  # on the stack, where an object has the number of things in it


def check(file: Any) -> None:
    """Read one pickle, without building anything, and refuse what no state dict has.

    Parameters
    ----------
    file : file-like
        io.BytesIO or mmap.mmap: reading a plain one allocates any length that a pickle claims.

    Raises
    ------
    FormatError
        If it has a tuple of very many things, or makes bytes by number.
    ValueError, IndexError, KeyError
        If it is damaged.
    """
    stack: list[int] = []
    memo: dict[Any, int] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name == "GLOBAL" and argument in BY_NUMBER:
            raise FormatError(f"the pickle calls {argument}, which no state dict needs")
        if name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(MARK)
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            taken = _pop(stack, opcode)
            size = 1 + sum(taken) if name.startswith("TUPLE") else 1
            if size > LARGEST:
                raise FormatError(f"the pickle has a tuple of more than {LARGEST} things")
            stack += [size] * len(opcode.stack_after)


def _pop(stack: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """What an opcode takes from the stack."""
    start = len(stack)
    fixed = len(opcode.stack_before)
    if pickletools.stackslice in opcode.stack_before:  # all from the last mark on
        fixed -= 2
        while stack[start - 1] != MARK:
            start -= 1
        start -= 1
    start -= fixed
    if start < 0:
        raise IndexError("the stack is empty")
    taken = stack[start:]
    del stack[start:]
    return taken
