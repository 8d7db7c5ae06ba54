"""Keras identifiers to objects and back, for every kind of object that a layer takes by name."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Self, TypeVar

import numpy as np

T = TypeVar("T", bound=Callable[..., Any])


class Configurable:
    """An object that is nothing but its constructor's arguments, kept as attributes of the same names."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """An object from the result of `get_config`, which is left as it is."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class Registry(Generic[T]):
    """The objects of one kind that Keras knows by name.

    Parameters
    ----------
    kind : str
        What error messages call such an object: ``"initializer"``.
    module : str
        The public module that Keras writes into configs: ``"keras.initializers"``.
    makers : mapping of str to class or function
        Called with an object's config to make the object; classes through their ``from_config``.
    functions : mapping of str to function
        Functions that are objects themselves, written into configs by their name.
    wrong_type : type of Exception, optional
        Raised for an identifier that is of no use at all, such as a number.

    Notes
    -----
    Several names may stand for one object: the first is the one in configs and in error messages.
    """

    def __init__(
        self,
        kind: str,
        module: str,
        makers: Mapping[str, Callable[..., T]],
        functions: Mapping[str, T] | None = None,
        wrong_type: type[Exception] = ValueError,
    ) -> None:
        self._kind = kind
        self._module = module
        self._makers: dict[str, Any] = dict(makers)
        self._functions = dict(functions or {})
        self._wrong_type = wrong_type

    def get(self, identifier: Any) -> T | None:
        """Turn a Keras identifier into the object that it stands for.

        Parameters
        ----------
        identifier : None, str, dict, class or callable
            None stays None. A name is case-sensitive. A dict is what `serialize` returns or the older
            ``{"class_name": ..., "config": ...}``; it is left as it is. A class is instantiated without
            arguments. Any other callable is returned as it is.

        Raises
        ------
        ValueError
            If a name is unknown, a dict is malformed, an argument in its config is refused, or (for most
            kinds) the identifier is of another type.
        TypeError
            If a config has a wrong argument, or a dict is of a class that Keras could not place in a module.
        """
        if identifier is None:
            return None
        if isinstance(identifier, str):
            return self._make(identifier, {})
        if isinstance(identifier, dict):
            return self._make(*self._name_and_config(identifier))
        made = identifier() if isinstance(identifier, type) else identifier
        if not callable(made):
            raise self._wrong_type(
                f"{self._kind} must be None, a name, a config dict, a class or a callable, got {identifier!r}"
            )
        return made  # type: ignore[no-any-return]

    def serialize(self, obj: Any) -> Any:
        """Turn an object into what Keras writes for it into the config of a layer.

        Returns
        -------
        None, str, dict or callable
            None for None; the name of a function that Keras knows; the keys ``module``, ``class_name``,
            ``config`` and ``registered_name`` for an object with a ``get_config``; any other callable itself.
            `get` takes all of them back, except the dict of a class that is not Keras' own.
        """
        for name, function in self._functions.items():
            if function is obj:
                return name
        if not hasattr(obj, "get_config"):
            return obj
        cls = type(obj)
        known = cls in self._makers.values()
        module = None if cls.__module__ == "__main__" else cls.__module__
        return {
            "module": self._module if known else module,
            "class_name": cls.__name__,
            "config": _to_plain(obj.get_config()),
            "registered_name": None if known else cls.__name__,
        }

    def _make(self, name: str, config: Mapping[str, Any]) -> T:
        if name in self._makers:
            maker = self._makers[name]
            config = {key: _from_plain(value) for key, value in config.items()}
            made: T = maker.from_config(config) if hasattr(maker, "from_config") else maker(**config)
            return made
        if name in self._functions and not config:
            return self._functions[name]
        if name in self._functions:
            raise ValueError(f"{self._kind} {name!r} takes no config, got {config!r}")
        raise ValueError(f"Unknown {self._kind}: {name!r}. Known names: {', '.join(self._first_names())}")

    def _name_and_config(self, identifier: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        name, config = identifier.get("class_name"), identifier.get("config")
        if "module" in identifier:
            config = config or {}
            if identifier["module"] is None:
                raise TypeError(
                    f"{self._kind} must be a Keras object or a config of one, got a config of class {name!r}"
                )
        if name == "function" and isinstance(config, str):
            name, config = config, {}
        if not isinstance(name, str) or not isinstance(config, dict):
            raise ValueError(
                f"{self._kind} as a dict must have the key 'class_name' with a name "
                f"and the key 'config' with a dict, got {identifier!r}"
            )
        return name, config

    def _first_names(self) -> list[str]:
        names: dict[int, str] = {}
        for name, entry in (self._functions | self._makers).items():
            names.setdefault(id(entry), name)
        return list(names.values())


def _to_plain(value: Any) -> Any:
    """NumPy values as Keras writes them into JSON."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"class_name": "__numpy__", "config": {"value": value.tolist(), "dtype": value.dtype.name}}
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_to_plain(item) for item in value])
    return value


def _from_plain(value: Any) -> Any:
    """Inverse of `_to_plain` for arrays; TensorFlow's tensors come as arrays too."""
    match value:
        case {"class_name": "__numpy__" | "__tensor__", "config": {"value": items, "dtype": dtype}}:
            made = np.dtype(dtype)
            if made.kind not in "biuf":  # a text of a million characters is one, too
                raise ValueError(f"an array in a config must be of numbers, got {made}")
            return np.array(items, dtype=made)
    return value
