"""What the values in the body of a loop are, in the terms of a GRU cell."""

from typing import Any

from fastgru._errors import FormatError
from fastgru.formats import _onnx_graph
from fastgru.formats._onnx_cell import Fixed, Step
from fastgru.formats._onnx_fold import NODE, Folder
from fastgru.formats._onnx_graph import Alias, Given, Inside, Output, said
from fastgru.formats._onnx_rules import Rules


class Body:
    """Tells what the values of a loop's body are, each of which it looks at once.

    Parameters
    ----------
    inside : Inside
        The body.
    folder : Folder
        Of constants.

    Attributes
    ----------
    known : dict
        What values are, by name: at first those of the body's inputs, which are put there.
    """

    def __init__(self, inside: Inside, folder: Folder) -> None:
        self.known: dict[str, Any] = {}
        self._inside, self._folder = inside, folder
        self._rules = Rules(folder)

    def step(self, sequence: Any) -> Step:
        """The step of a sequence."""
        return self._rules.step(sequence)

    def meaning(self, name: str) -> Any:
        """What a value is.

        Raises
        ------
        FormatError
            If it, or what it is computed from, is nothing that a GRU cell has.
        """
        pending, begun = [name], set()
        while pending:  # a stack of our own: nodes may lie deeper than Python's
            top = pending[-1]
            if top in self.known:
                pending.pop()
                continue
            value = self._inside.scope.get(top)
            if not isinstance(value, Output) or value.inside is not self._inside:
                self.known[top] = self._outer(top)
                continue
            missing = [source for source in value.node.input if source and source not in self.known]
            if missing:
                if top in begun:
                    raise FormatError("a value depends on itself")
                begun.add(top)
                pending += missing
                continue
            self._folder.spend(NODE)
            self.known[top] = self._of_node(value)
        return self.known[name]

    def _outer(self, name: str) -> Fixed:
        """A value that no node of the body computes."""
        scope = self._inside.scope
        if isinstance(scope.maps[0].get(name), Alias | Given):
            raise FormatError(f"{name!r:.80} is a value of its body that has no meaning in a GRU cell")
        return Fixed(_onnx_graph.find(scope, name))

    def _of_node(self, value: Output) -> Any:
        node = value.node
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise FormatError(f"{said(node)} has a graph in it")
        inputs = [self.known[name] if name else None for name in node.input]
        if all(isinstance(source, Fixed) for source in inputs if source is not None):
            return Fixed(value)
        return self._rules.of_node(inputs, value)
