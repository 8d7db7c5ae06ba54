"""What whole models may be made of: tables of the page reference/models.md, made from the readers' own.

python docs/supported.py        replaces them in the page
"""

import inspect
import re
from collections.abc import Iterable
from pathlib import Path

from fastgru import _nodes, model
from fastgru.formats import _keras_whole, _onnx_recurrent, _onnx_whole

PAGE = Path(__file__).parent / "reference/models.md"
TABLE = re.compile(r"(?P<start><!-- table: (?P<name>\w+) -->\n)(?P<table>.*?)(?=<!-- end -->)", re.S)


def said(function: object) -> str:
    """The first paragraph of a docstring, on one line."""
    paragraph, _, _ = (function.__doc__ or "").strip().partition("\n\n")
    return " ".join(paragraph.split())


def table(*rows: Iterable[str]) -> str:
    """A table of Markdown, with a head."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * head.count(" | ") + "|---|", *body])


def shown(value: object) -> str:
    """A value of Python, strings in double quotes."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def keras() -> str:
    """The classes of Keras' layers, those that are computed in the same way in one row."""
    of_function: dict[object, list[str]] = {}
    for name, kind in _keras_whole.KINDS.items():
        of_function.setdefault(kind.make, []).append(name)
    rows = []
    for function, names in of_function.items():
        kind = _keras_whole.KINDS[names[0]]
        options = [
            f"`{option}={shown(values[0])}`" for option, values in kind.wants.items() if values[0] is not None
        ]
        wanted = f" Only {', '.join(options)}." if options else ""
        marks = ["yes" if flag else "no" for flag in (kind.passes_mask, kind.each_step)]
        rows.append([", ".join(f"`{name}`" for name in names), said(function) + wanted, *marks])
    return table(["layer", "what is computed", "passes its mask on", "in `TimeDistributed`"], *rows)


def onnx() -> str:
    """The operators of ONNX."""
    of_function: dict[object, list[str]] = {
        _onnx_recurrent.gru: ["GRU"],
        _onnx_recurrent.loop: ["Loop", "Scan"],
    }
    for name, function in sorted(_onnx_whole.OPERATORS.items()):
        of_function.setdefault(function, []).append(name)
    rows = [
        [", ".join(f"`{name}`" for name in names), said(function)] for function, names in of_function.items()
    ]
    return table(["operator", "what is computed"], *rows)


BLOCKS = re.compile(r'\.blocks\(\s*graph, "(.*?)"')  # what a layer says that is in the way of a stream


def blocks() -> str:
    """What is in the way of a stream, and which layers say so."""
    of_reason: dict[str, list[str]] = {}
    for kind in _nodes.KINDS.values():
        for base in kind.__mro__[:-1]:
            for reason in BLOCKS.findall(inspect.getsource(base)):
                of_reason.setdefault(reason, []).append(said(kind))
    for reason in BLOCKS.findall(inspect.getsource(model)):
        of_reason[reason] = ["Any layer of several inputs."]
    return table(
        ["what the message says of a layer", "which layers"],
        *([reason, " ".join(kinds)] for reason, kinds in of_reason.items()),
    )


MAKERS = {"keras": keras, "onnx": onnx, "blocks": blocks}


def written(page: str) -> str:
    """A page with the tables as they are now."""
    return TABLE.sub(lambda found: f"{found['start']}\n{MAKERS[found['name']]()}\n\n", page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
