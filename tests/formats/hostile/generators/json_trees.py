"""JSON that is changed: values, names and texts of another kind, and texts that only parsers take amiss."""

import copy
import json

from formats.hostile.generators.drawing import scrambled

WEIRD = (
    *(None, True, False, -1, 0, 1, 3, 1.5, 1e308, 2**31, 2**63, 10**30, float("nan"), float("inf")),
    *("", "x", "GRU", "softmax", "../x", "\0", "gru", "float16", [], {}, [1, 2], [[]], ["x"], [None] * 3),
    {"class_name": "GRU"},
    {"class_name": "Softmax", "config": {"axis": 7}},
    {"class_name": "PReLU", "config": {"shared_axes": [3]}},
    {"class_name": "__numpy__", "config": {"value": [1], "dtype": "U999999999"}},
    {"class_name": "Constant", "config": {"value": [[1, 2], [3]]}},
)
KEYS = ("weights", "name", "config", "cell", "layers", "class_name", "layer", "x")


def weird(rng):
    """A value that belongs nowhere."""
    return copy.deepcopy(rng.choice(WEIRD))


def places(value):
    """Every (container, key) of a tree."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from places(item)


def changed(tree, rng):
    """A tree of which some values, keys or entries are others."""
    tree = {"": tree}
    for _ in range(rng.choice([1, 1, 2, 4])):
        container, key = rng.choice(list(places(tree)))
        match rng.randrange(6):
            case 0 | 1 | 2:
                container[key] = weird(rng)
            case 3:
                other = rng.choice(list(container)) if isinstance(container, dict) else None
                container[key] = copy.deepcopy(container.get(other)) if other is not None else 0
            case 4 if container is not tree:
                del container[key]
            case 5 if isinstance(container, dict) and container is not tree:
                container[rng.choice(KEYS)] = container.pop(key)
    return tree.get("")


def misspelled(text, rng):
    """A text of JSON that is none, or that parsers may read in several ways or not to the end."""
    deep = rng.choice([50, 500, 5_000, 100_000])
    match rng.randrange(12):
        case 0:
            return text.replace(b"{", b'{"config": 1, "config": 2, ', 1)
        case 1:
            return text.replace(b"null", b"[" * deep + b"]" * deep)
        case 2:
            return text.replace(b"1", b"1" * rng.choice([400, 4_300, 4_301, 5_000]), rng.choice([1, 20]))
        case 3:
            return scrambled(text, rng)
        case 4:
            return rng.choice([b"\xef\xbb\xbf", b"\xff\xfe", b" " * 1000, b"\0", b"x"]) + text
        case 5:
            return text + rng.choice([b" ", b"}", b"\0", b"{}", b"// comment", b"\n" * 1000])
        case 6:
            return text.decode().encode(rng.choice(["utf-16", "utf-32", "utf-16-le", "utf-32-be"]))
        case 7:
            return text.replace(b'"', rng.choice([b"'", b"", b'\\"']), rng.choice([1, 2, 9]))
        case 8:
            return text.replace(b": ", b': {"a": ' * deep + b"1" + b"}" * deep + b', "b": ', 1)
        case 9:
            return text.replace(b'"name": "', b'"name": "\\ud800', 1).replace(b"e", b"\\u0065", 3)
        case 10:
            strange = [b"NaN", b"-Infinity", b"1e999", b"-0", b"0x10", b"1_000", b"01", b"1e-400", b"true"]
            return text.replace(b"0", rng.choice(strange), rng.choice([1, 2]))
        case _:
            return text[: rng.randrange(len(text) + 1)]


def changed_text(text, rng):
    """A text of JSON that says something else, or is now and then none."""
    changed_tree = json.dumps(changed(json.loads(text), rng)).encode()
    return misspelled(changed_tree, rng) if rng.random() < 0.2 else changed_tree
