"""Where a scorer's network comes from, carried to other processes, and loaded once in each."""

import dataclasses
import functools
import hashlib
import os
import pickle
import threading
from pathlib import Path
from typing import Any

from fastgru import formats
from fastgru._member import Member
from fastgru._scoring._network import LayerNetwork, ModelNetwork, Network
from fastgru.formats.models import load_model
from fastgru.model import Model

KEPT = 8  # networks that a process keeps loaded


@dataclasses.dataclass(frozen=True)
class Source:
    """A network by its file or its bytes, and how it is loaded; equal ones are loaded once in a process.

    Attributes
    ----------
    digest : str
        The SHA-256 of the bytes or the file; empty for a folder.
    kind : {'path', 'file', 'pickle'}
        What `content` is: a path, the bytes of a file, or a pickled layer or model.
    content : str or bytes
    options : tuple of (str, object)
        `layer`, `dtype`, `weights_dtype` and `num_threads`.
    """

    digest: str
    kind: str
    content: Any = dataclasses.field(compare=False, repr=False)
    options: tuple[tuple[str, Any], ...]

    def network(self) -> Network:
        """The network, loaded if this process has not yet.

        Raises
        ------
        ValueError
            If the file is another one than it was when the source was made, or cannot be loaded with these
            options.
        OSError
            If it cannot be read.
        """
        with _lock:
            return _loaded(self)


_lock = threading.Lock()


def _unlock() -> None:
    """Replace the lock in the child of a fork, in which a thread that held it does not exist."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def source_of(given: Any, **options: Any) -> Source:
    """The source of what a caller gives: a path, the bytes of a file, a layer or a model."""
    told = tuple(sorted(options.items()))
    if isinstance(given, bytes):
        return Source(hashlib.sha256(given).hexdigest(), "file", given, told)
    if isinstance(given, Member | Model):
        if options["layer"] is not None:
            raise ValueError(f"layer must be left out for a layer or a model, got {options['layer']!r}")
        if not given.built:
            raise ValueError(f"model must have its weights, got {given!r}, which is not built")
        content = pickle.dumps(given)
        return Source(hashlib.sha256(content).hexdigest(), "pickle", content, told)
    if isinstance(given, str | os.PathLike):
        path = Path(given).resolve()  # a worker has another working directory
        return Source(_digest(path), "path", str(path), told)
    raise TypeError(
        "model must be a path, the bytes of a file, a layer or a Model, "
        f"got {given!r} of type {type(given).__name__}"
    )


def _digest(path: Path) -> str:
    if path.is_dir():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(KEPT)
def _loaded(source: Source) -> Network:
    options = dict(source.options)
    if source.kind == "path" and _digest(Path(source.content)) != source.digest:
        raise ValueError(f"{source.content} must be the file that the scorer was made of, and has changed")
    if source.kind == "pickle":
        found = pickle.loads(source.content)
        for name in ("dtype", "weights_dtype"):
            _check_is(name, options[name], found)
    else:
        found = _of_file(source.content, options)
    if isinstance(found, Model):
        found.num_threads = options["num_threads"]
        return ModelNetwork(found)
    if any(part.stateful for part in found._parts):
        raise ValueError("model must not be stateful, because the parts of a job run in any order")
    found.num_threads = options["num_threads"]
    return LayerNetwork(found)


def _of_file(content: Any, options: dict[str, Any]) -> Any:
    """The whole model of a file, or the layer that is named or all that the file holds."""
    told = {name: options[name] for name in ("dtype", "weights_dtype") if options[name] is not None}
    if options["layer"] is None and formats.has_whole_model(content):
        found = load_model(content, options["weights_dtype"])
        _check_is("dtype", options["dtype"], found)
        return found
    return formats.load(content, options["layer"], stateful=False, **told)


def _check_is(name: str, wanted: str | None, found: Any) -> None:
    """Refuse a type that only a layer's file can be loaded with."""
    kept = getattr(found if isinstance(found, Model) or name == "dtype" else found._parts[0], name)
    if wanted is not None and wanted != kept:
        raise ValueError(f"{name} must be left out or {kept!r}, that of {found!r}, got {wanted!r}")
