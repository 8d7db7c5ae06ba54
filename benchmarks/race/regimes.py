"""What is raced: the regimes, each with its layers, and what fastgru should reach at them."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.networks import NETWORKS, NetworkTask
from benchmarks.tasks import Shape, Task

OURS = "fastgru"  # the contender that is judged in all things,
INT8 = "fastgru-int8"  # and the one that is among those with int8 weights
MODELS = "models"  # the regime of whole models
WAYS = "ways"  # to call it, raced among themselves: no regime, but asked for as one


class Event(NamedTuple):
    """A heat to be run."""

    task: Task | NetworkTask
    label: str = ""  # whose layer this is, or what kind
    plain: Task | None = None  # fastgru runs this, too, to be compared with itself


class Regime(NamedTuple):
    """Heats of one kind."""

    name: str
    title: str
    events: tuple[Event, ...]
    quick: tuple[Event, ...]  # of a race that is to end soon


def _streams(*shapes: tuple[int, int, int]) -> tuple[Event, ...]:
    """Of batch, features and units."""
    return tuple(
        Event(Task(Shape(batch, 1, features, units), stream=True)) for batch, features, units in shapes
    )


def _calls(*shapes: tuple[int, int, int, int]) -> tuple[Event, ...]:
    return tuple(Event(Task(Shape(*shape))) for shape in shapes)


def _products(*products: tuple[str, tuple[int, int, int, int]]) -> tuple[Event, ...]:
    """One row and one step is a stream."""
    return tuple(Event(Task(Shape(*shape), stream=shape[:2] == (1, 1)), label) for label, shape in products)


def _variants(**options: Any) -> tuple[Event, ...]:
    shapes = (Shape(1, 1, 64, 64), Shape(1, 1, 256, 256), Shape(1, 100, 128, 128), Shape(32, 50, 256, 256))
    tasks = [Task(shape, stream=shape[:2] == (1, 1)) for shape in shapes]
    return tuple(Event(task._replace(**options), plain=task) for task in tasks)


def _double(*shapes: tuple[int, int, int, int]) -> tuple[Event, ...]:
    tasks = [Task(Shape(*shape), stream=shape[:2] == (1, 1)) for shape in shapes]
    return tuple(Event(task._replace(dtype="float64"), plain=task) for task in tasks)


def _models(**timesteps: int) -> tuple[Event, ...]:
    """Step by step, if the model streams, then whole sequences of one row, then of 32."""
    tasks = []
    for name, steps in timesteps.items():
        tasks += [NetworkTask(name, 1, 1, stream=True)] if NETWORKS[name].units else []
        tasks += [NetworkTask(name, batch, steps) for batch in (1, 32)]
    return tuple(Event(task, NETWORKS[task.name].label) for task in tasks)


_ONE = _streams(*((1, units, units) for units in (16, 32, 64, 128, 256, 400, 512, 1024)))
_MORE = _streams(*((batch, units, units) for batch in (4, 16, 64) for units in (64, 128, 256, 512)))
_STEPS = _calls(
    *((1, 100, units, units) for units in (16, 32, 64, 128, 256, 400, 512, 1024)),
    *((1, steps, units, units) for steps in (20, 1000) for units in (64, 256)),
    (1, 100, 40, 128),
)
_ROWS = _calls(
    *((batch, 50, units, units) for batch in (8, 32, 64, 128, 256) for units in (64, 128, 256, 512))
)
_PRODUCTS = _products(
    ("a call", (1, 1, 1, 1)),  # next to nothing to compute
    ("WebRTC's voice detector", (1, 1, 42, 24)),
    ("RNNoise 0.1, voice", (1, 1, 24, 24)),
    ("RNNoise 0.1, noise", (1, 1, 90, 48)),
    ("RNNoise 0.1, denoise", (1, 1, 114, 96)),
    ("RNNoise 0.2", (1, 1, 384, 384)),
    ("mycroft-precise", (1, 29, 13, 20)),
    ("keyword spotting, small", (1, 25, 10, 154)),
    ("keyword spotting, large", (1, 49, 10, 400)),
    ("DeepFilterNet", (1, 1, 256, 256)),
    ("NSNet2", (1, 1, 400, 400)),
    ("LPCNet, a sample", (1, 1, 512, 384)),
    ("GRU4Rec, serving", (1, 1, 100, 100)),
    ("GRU4Rec, serving", (1, 1, 224, 224)),
    ("GRU4Rec, training batch", (512, 1, 480, 480)),
    ("g2p_en", (1, 10, 256, 256)),
    ("DeepBench", (1, 1, 512, 512)),
    ("DeepBench", (1, 1500, 1024, 1024)),
    ("DeepBench", (4, 187, 1536, 1536)),
)
_VARIANTS = (
    *_double((1, 1, 128, 128), (1, 1, 256, 256), (1, 100, 256, 256), (64, 50, 256, 256)),
    *_variants(reset_after=False),
    *_variants(recurrent_activation="hard_sigmoid"),
    *(event for event in _variants(masked=True) if not event.plain.stream),
    *(event for event in _variants(bidirectional=True) if not event.plain.stream),
)

_MODELS = _models(
    nsnet2=100, keyword=25, precise=29, gru4rec=10, sentiment=80, forecaster=48, tagger=20, g2p=10
)

REGIMES = (
    Regime("stream", "One step, the state carried", (*_ONE, *_MORE), (_ONE[2], _ONE[4], _MORE[6])),
    Regime("sequence", "One row, many steps", _STEPS, (_STEPS[4],)),
    Regime("batch", "Many rows, fifty steps", _ROWS, (_ROWS[6],)),
    Regime("products", "Layers of real products", _PRODUCTS, (_PRODUCTS[0], _PRODUCTS[10])),
    Regime("variants", "Other layers", _VARIANTS, (_VARIANTS[1], _VARIANTS[5], _VARIANTS[13])),
    Regime(MODELS, "Whole models", _MODELS, (_MODELS[0], _MODELS[6])),
)


class Goal(NamedTuple):
    """How many times as fast as another a contender should be."""

    task: Task | NetworkTask
    contender: str
    ratio: float
    baseline: str = "the best peer"  # or a contender, or "plain": itself with the usual layer


def _goals() -> tuple[Goal, ...]:
    half = "fastgru-f16"
    against_peers = (
        *((1, 1, units, units, OURS, ratio) for units, ratio in ((64, 8.0), (128, 4.0), (256, 2.0))),
        *((1, 1, units, units, OURS, ratio) for units, ratio in ((400, 1.3), (512, 1.1))),
        *((1, 1, units, units, half, ratio) for units, ratio in ((256, 5.0), (400, 2.5), (512, 2.2))),
        (1, 1, 42, 24, OURS, 8.0),
        (1, 100, 40, 128, OURS, 1.6),
        *((1, 100, units, units, OURS, ratio) for units, ratio in ((128, 1.6), (256, 1.4), (400, 1.5))),
        (1, 100, 400, 400, half, 2.2),
        (4, 1, 256, 256, OURS, 2.0),
        *((batch, 50, 256, 256, OURS, ratio) for batch, ratio in ((8, 1.3), (32, 1.2), (128, 1.2))),
        (8, 50, 128, 128, OURS, 1.3),
        (64, 50, 512, 512, OURS, 1.2),
    )
    goals = [
        Goal(Task(Shape(*shape), stream=shape[1] == 1), name, ratio) for *shape, name, ratio in against_peers
    ]
    of_int8 = (
        *((1, 1, units, ratio) for units, ratio in ((64, 1.3), (128, 2.0), (256, 2.8), (400, 2.8))),
        *((1, 100, units, ratio) for units, ratio in ((128, 1.65), (256, 2.25), (400, 2.25), (512, 2.1))),
        *((1, 1, 512, 3.0), (8, 50, 256, 1.3), (32, 50, 256, 1.25), (64, 50, 512, 1.45)),
    )
    goals += [
        Goal(Task(Shape(batch, steps, units, units), stream=steps == 1), INT8, ratio, OURS)
        for batch, steps, units, ratio in of_int8
    ]
    for event in _VARIANTS:
        task = event.task
        if task.dtype == "float64":
            goals.append(Goal(task, OURS, 1.3 if task.shape.batch > 1 else 5.0, "tf_keras"))
        elif not task.reset_after:
            goals.append(Goal(task, OURS, 0.8, "plain"))  # at most 1.25 times as long
        elif not (task.masked or task.bidirectional):
            goals.append(Goal(task, OURS, 0.97, "plain"))  # not slower, but for the noise
    of_models = (("nsnet2", 2.0), ("keyword", 4.0), ("precise", 4.0))
    for name, ratio in of_models:
        goals.append(Goal(NetworkTask(name, 1, 1, stream=True), OURS, ratio, "onnxruntime"))
    return tuple(goals)


GOALS = _goals()
ROOF_WANTED = 0.6  # share of the roofline, from so many units on
ROOF_UNITS = 64
