"""What other threads change while a layer is called: a call sees each change wholly or not at all."""

import concurrent.futures
import contextlib
import copy
import gc
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastgru
from fastgru import GRU, Bidirectional, Stack

X = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def _threads_take_turns_quickly():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def while_another(change, functions):
    """The results of functions, each called in a thread of its own, while `change` is called in a loop."""
    stop = threading.Event()

    def go_on():
        number = 0
        while not stop.is_set():
            change(number)
            number += 1

    with ThreadPoolExecutor(len(functions) + 1) as pool:
        changer = pool.submit(go_on)
        try:
            return [future.result() for future in [pool.submit(each) for each in functions]]
        finally:
            stop.set()
            changer.result()


def built(layer):
    layer.build(X.shape)
    return layer


def two_sets(layer):
    """Two sets of weights of a layer."""
    return [[np.full_like(w, value) for w in layer.get_weights()] for value in (0.25, -0.5)]


def bits(found):
    return b"".join(each.tobytes() for each in found) if isinstance(found, list) else found.tobytes()


def sequences(units, **more):
    return GRU(units, return_sequences=True, **more)


LAYERS = {
    "GRU": lambda: sequences(4),
    "GRU with a Python activation": lambda: sequences(4, activation=np.tanh),
    "Bidirectional": lambda: Bidirectional(sequences(4)),
    "Stack": lambda: Stack([sequences(4), Bidirectional(sequences(3))]),
}
MASK = np.arange(6) % 3 > np.array([[0], [1]])


@pytest.mark.parametrize("kind", LAYERS)
def test_calls_and_copies_see_whole_changes_of_a_layer(kind):
    layer = built(LAYERS[kind]())
    gru = layer._parts[-1]
    sets, wanted = two_sets(layer), set()
    for weights in sets:
        layer.set_weights(weights)
        for gru.zero_output_for_mask in (True, False):
            wanted.add(bits(layer(X, mask=MASK)))
    assert len(wanted) == 4

    def change(number):
        layer.set_weights(sets[number % 2])
        layer.num_threads = (1, 2, None, "auto")[number % 4]
        gru.zero_output_for_mask = number % 3 == 0
        LAYERS[kind]().build(X.shape)  # and is freed
        gc.collect(0)

    def calls():
        assert {bits(layer(X, mask=MASK)) for _ in range(60)} <= wanted

    def copies():
        for _ in range(30):
            assert bits(pickle.loads(pickle.dumps(layer))(X, mask=MASK)) in wanted
            assert bits(copy.copy(layer)(X, mask=MASK)) in wanted

    while_another(change, [calls, calls, calls, copies])


def test_streams_keep_one_set_of_weights_of_a_stack():
    layer = built(Stack([sequences(4), sequences(3)]))
    sets, wanted = two_sets(layer), set()
    for weights in sets:
        layer.set_weights(weights)
        wanted.add(bits(layer(X)))

    def streams():
        for _ in range(40):
            stream = layer.stream(2, num_threads=2)
            found = np.stack([stream(x).copy() for x in X.swapaxes(0, 1)], axis=1)
            assert bits(found) in wanted

    while_another(lambda number: layer.set_weights(sets[number % 2]), [streams, streams])


class Watched(GRU):
    """Calls `watch` before one of its attributes is set or read."""

    attribute, watch = "", staticmethod(lambda: None)

    def __setattr__(self, name, value):
        if name == self.attribute:
            self.watch()
        super().__setattr__(name, value)

    def __getattribute__(self, name):
        if name == super().__getattribute__("attribute"):
            self.watch()
        return super().__getattribute__(name)


def halfway(function, gru, attribute, other):
    """The results of `function` and of `other`, which another thread calls when the first one comes to an
    attribute of `gru`."""
    with ThreadPoolExecutor(1) as pool:
        called = []

        def watch():
            gru.attribute = ""
            called.append(pool.submit(other))
            concurrent.futures.wait(called, timeout=0.1)  # or it waits for the end of `function`

        gru.attribute, gru.watch = attribute, watch
        return function(), called[0].result()


def rebuilt(layer):
    layer.num_threads = 1
    return layer(X)


@pytest.mark.parametrize("what", [rebuilt, lambda s: s.get_weights(), lambda s: s.stream(2)(X)])
def test_a_layer_sees_whole_changes_by_another_one_of_the_same_members(what):
    members = [sequences(4), Watched(4, return_sequences=True)]
    first, second = built(Stack(members)), built(Stack(members))
    sets, wanted = two_sets(first), []
    for weights in sets:
        first.set_weights(weights)
        wanted.append(bits(what(second)))
    _, found = halfway(lambda: first.set_weights(sets[0]), members[1], "_weights", lambda: bits(what(second)))
    assert found in wanted
    assert bits(what(second)) == wanted[0]


def test_states_of_members_are_from_between_the_calls_of_any_layer():
    members = [sequences(4, stateful=True), Watched(4, stateful=True)]
    first, second = built(Stack(members)), built(Stack(members))
    before = bits(second.states)
    found, _ = halfway(lambda: bits(second.states), members[1], "states", lambda: first(X))
    assert found in (before, bits(second.states))


def test_a_stateful_call_that_waited_uses_the_weights_that_it_finds():
    layer = built(GRU(4, stateful=True))
    layer(X)  # from now on calls take the short path
    sets = two_sets(layer)
    layer.set_weights(sets[1])
    layer.reset_states()
    wanted = bits(layer(X))
    layer.set_weights(sets[0])
    layer(X)
    entered = threading.Event()

    def call():
        entered.set()
        return bits(layer(X))

    with ThreadPoolExecutor(1) as pool:
        with layer._lock:  # as a call of another thread holds it
            waiting = pool.submit(call)
            entered.wait()
            threading.Event().wait(0.05)  # in which it most likely comes to the lock
            layer.set_weights(sets[1])
            layer.reset_states()
        assert waiting.result() == wanted


def test_recorded_states_are_read_while_calls_replace_them():
    layer = built(GRU(4, stateful=True))
    layer(X)
    found = while_another(
        lambda number: layer(X), [lambda: {layer.input_spec[0].shape for _ in range(3000)}] * 2
    )
    assert set.union(*found) == {(2, None, 5)}


def test_lists_of_arguments_may_change_while_they_are_read():
    layer, lengths = built(GRU(4)), [6, 3]
    state = np.ones((2, 4), np.float32)
    inputs, wanted = [X, state], {bits(layer([X, state])), bits(layer(X)), bits(layer(X, lengths=lengths))}
    pool = fastgru.StreamPool(layer, 4)
    slots = [pool.open(), pool.open()]
    wrong = {ValueError, TypeError}

    def change(_):
        for each, item in ((inputs, state), (lengths, 3), (slots, slots[-1])):
            each.pop()
            each.append(item)

    def calls():
        seen = set()
        for call in [lambda: layer(inputs), lambda: layer(X, lengths=lengths)] * 300:
            try:
                seen.add(bits(call()))
            except (ValueError, TypeError) as error:
                seen.add(type(error))
        for _ in range(300):
            with contextlib.suppress(ValueError):  # one slot is there twice, or too few
                pool.step(slots, X[:, 0])
        return seen

    for seen in while_another(change, [calls, calls]):
        assert seen <= wanted | wrong
