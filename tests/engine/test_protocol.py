"""The protocol of several threads on one call, as the head of src/team.c has it: every order of its steps.

A model of it, one atomic access a step. Phase i reads what phase i - 1 has written, in one of two buffers,
and writes the other one, unit by unit. Names are those of team.c. The leader may lose patience whenever it
waits, a few times.
"""

import marshal
import random

import pytest

OPEN, WORK, WAIT, OVER = "open", "work", "wait", "over"


class WrongError(AssertionError):
    """A state that must not be reached."""


class Model:
    """All that threads share, and where each of them is.

    Parameters
    ----------
    threads, sets, phases, units : int
    losses : int
        Times that the leader may lose patience, about: numbers of phases are not used up for ever.
    fault : str, optional
        What is left out of the protocol.
    """

    def __init__(self, threads, sets, phases, units, losses, fault=None):
        self.phases, self.units, self.losses, self.fault = phases, units, losses, fault
        self.claims = [[[(0, 0, 0)] * threads for _ in range(2)] for _ in range(sets)]
        self.left = [[(0, 0), (0, 0)] for _ in range(sets)]
        self.lost = [0] * sets
        self.what = [[0, 0] for _ in range(sets)]  # the phase of each number, by its parity
        self.buffers = [[[0] * units, [None] * units] for _ in range(sets)]
        self.current = 0
        # of the leader: the phase that it runs, by the numbers of it and of the one after it
        self.set, self.phase, self.numbers, self.helped, self.last = 0, 1, [], {}, 0
        self.actors = [["leader", OPEN, 0]] + [["look", 0] for _ in range(1, threads)]

    def key(self):
        """The state as bytes: equal states have equal bytes."""
        self.helped = {number: self.helped[number] for number in self.numbers}
        return marshal.dumps([self.__dict__[name] for name in sorted(self.__dict__)], 2)

    def copy(self, key=None):
        """A model in the state of a key, by default its own."""
        made = Model.__new__(Model)
        made.__dict__ = dict(zip(sorted(self.__dict__), marshal.loads(key or self.key()), strict=True))
        return made

    # ---- words ---------------------------------------------------------------------------------

    def is_done(self, place, number):
        """True if all units of a phase are done."""
        phase, units = self.left[place][number % 2]
        return phase > number or (phase == number and units == 0)

    def another(self):
        """A set that the leader does not work in and nobody is lost in, or None."""
        free = [
            place
            for place, lost in enumerate(self.lost)
            if place != self.set and (not lost or self.is_done(place, lost) or self.fault == "reuse")
        ]
        return free[0] if free else None

    def run(self, thread, place, number, unit, begins):
        """A unit reads its phase's input at its beginning and at its end, and then writes its output."""
        phase = self.what[place][number % 2]
        if place != self.set:
            return  # lost: nobody reads what it writes
        if number not in self.numbers:
            raise WrongError(f"thread {thread} works at phase number {number}, the leader at {self.numbers}")
        if self.buffers[place][(phase - 1) % 2] != [phase - 1] * self.units:
            raise WrongError(f"thread {thread} in phase {phase} reads {self.buffers[place]}")
        if not begins:
            self.buffers[place][phase % 2][unit] = phase

    # ---- steps ---------------------------------------------------------------------------------

    def step(self, thread):
        """The states after the next step of a thread."""
        actor = self.actors[thread]
        return getattr(self, f"_{actor[0]}")(thread, *actor[1:])

    def _went(self, thread, *where):
        self.actors[thread] = list(where)
        return [self]

    def _leader(self, thread, where, at):
        if where == OPEN:
            return self._open(thread, at)
        if where == WAIT:
            return self._wait(thread)
        return []

    def _open(self, thread, at):
        """Open the phase at hand, or the one after it: `left`, then one claim a step."""
        ahead = len(self.numbers)
        if at == 0:
            if ahead == 2 or self.phase + ahead > self.phases:
                return self._begin(thread)
            self.last += 1
            self.numbers.append(self.last)
            self.what[self.set][self.last % 2] = self.phase + ahead
            self.left[self.set][self.last % 2] = (self.last, self.units)
            self.helped[self.last] = self.another() is not None
            return self._went(thread, "leader", OPEN, 1 if self.helped[self.last] else 0)
        count = len(self.actors)
        shares = [i * self.units // count for i in range(count + 1)]
        self.claims[self.set][self.last % 2][at - 1] = (self.last, shares[at - 1], shares[at])
        return self._went(thread, "leader", OPEN, (at + 1) % (count + 1))

    def _begin(self, thread):
        number = self.numbers[0]
        if self.helped[number]:
            return self._went(thread, "claim", self.set, number, 0, 0)
        for unit in range(self.units):
            self.run(thread, self.set, number, unit, True)
            self.run(thread, self.set, number, unit, False)
        self.left[self.set][number % 2] = (number, 0)
        return self._went(thread, "leader", WAIT, 0)

    def _wait(self, thread):
        number = self.numbers[0]
        if self.is_done(self.set, number):
            if self.buffers[self.set][self.phase % 2] != [self.phase] * self.units:
                raise WrongError(f"phase {self.phase} is over, and has written {self.buffers[self.set]}")
            self.phase += 1
            self.numbers = self.numbers[1:]
            over = self.phase > self.phases
            return self._went(thread, *(("leader", OVER, 0) if over else ("leader", OPEN, 0)))
        if self.another() is None:
            raise WrongError("the leader waits for a helper, and has no other memory")
        if self.last >= self.phases + self.losses * 2:
            return [self]
        return [self.copy(), *self._went(thread, "close", 0, ())]

    def _close(self, thread, at, old):
        """Close the claims of the phase after the one that a helper is lost in, one a step."""
        if len(self.numbers) == 2 and self.helped[self.numbers[1]] and at < len(self.actors):
            ahead = self.numbers[1]
            if self.fault != "open":
                old += (self.claims[self.set][ahead % 2][at],)
                self.claims[self.set][ahead % 2][at] = (ahead, 0, 0)
            return self._went(thread, "close", at + 1, old)
        if self.is_done(self.set, self.numbers[0]):
            return self._went(thread, "restore", 0, old)
        return self._move(thread)

    def _restore(self, thread, at, old):
        if at == len(old):
            return self._went(thread, "leader", WAIT, 0)
        self.claims[self.set][self.numbers[1] % 2][at] = old[at]
        return self._went(thread, "restore", at + 1, old)

    def _move(self, thread):
        """To another set, with what the phase at hand reads."""
        place, before = self.another(), self.set
        if self.buffers[before][(self.phase - 1) % 2] != [self.phase - 1] * self.units:
            raise WrongError(f"phase {self.phase} cannot be done again: {self.buffers[before]}")
        self.lost[before] = self.numbers[0]
        self.lost[place] = 0
        self.left[place][self.last % 2] = (self.last, 0)
        self.buffers[place] = [[None] * self.units, [None] * self.units]
        self.buffers[place][(self.phase - 1) % 2] = [self.phase - 1] * self.units
        self.set, self.numbers = place, []
        return self._went(thread, "leader", "moved", 0) if self.fault == "silent" else self._told(thread)

    def _told(self, thread):
        self.current = self.set
        return self._went(thread, "leader", OPEN, 0)

    def _look(self, thread, last):
        """A helper reads which set is the current one."""
        return self._went(thread, "first", last, self.current)

    def _first(self, thread, last, place):
        return self._went(thread, "second", last, place, self.claims[place][0][thread][0])

    def _second(self, thread, last, place, other):
        opened = [number for number in (other, self.claims[place][1][thread][0]) if number > last]
        if not opened:
            return self._went(thread, "look", last)
        return self._went(thread, "begun", last, place, min(opened))

    def _begun(self, thread, last, place, number):
        if self.fault != "early" and not self.is_done(place, number - 1):
            return self._went(thread, "look", last)
        return self._went(thread, "claim", place, number, 0, 0)

    def _claim(self, thread, place, number, at, done):
        """Read the word of a share."""
        count = len(self.actors)
        if at == count:
            return self._went(thread, "done", place, number, done)
        word = self.claims[place][number % 2][(thread + at) % count]
        if word[0] != number or word[1] >= word[2]:
            return self._went(thread, "claim", place, number, at + 1, done)
        return self._went(thread, "swap", place, number, at, done, word)

    def _swap(self, thread, place, number, at, done, word):
        owner = (thread + at) % len(self.actors)
        if self.claims[place][number % 2][owner] != word:
            return self._went(thread, "claim", place, number, at, done)
        phase, first, end = word
        units = (end - first + 1) // 2 if at == 0 else 1
        if (number % 2) == (at == 0):
            taken, rest = range(end - units, end), (phase, first, end - units)
        else:
            taken, rest = range(first, first + units), (phase, first + units, end)
        self.claims[place][number % 2][owner] = rest
        return self._went(thread, "unit", place, number, at, done, tuple(taken), True)

    def _unit(self, thread, place, number, at, done, units, begins):
        self.run(thread, place, number, units[0], begins)
        if begins:
            return self._went(thread, "unit", place, number, at, done, units, False)
        if len(units) > 1:
            return self._went(thread, "unit", place, number, at, done + 1, units[1:], True)
        return self._went(thread, "claim", place, number, at, done + 1)

    def _done(self, thread, place, number, done):
        if done:
            phase, units = self.left[place][number % 2]
            if phase != number or units < done:
                raise WrongError(
                    f"thread {thread} has done {done} units of {number}, left are {units} of {phase}"
                )
            self.left[place][number % 2] = (phase, units - done)
        return self._went(thread, *(("leader", WAIT, 0) if thread == 0 else ("look", number)))


def explore(*sizes, fault=None):
    """How many states can be reached; raises `WrongError` if one of them must not be."""
    start = Model(*sizes, fault=fault)
    seen, todo = {start.key()}, [start.key()]
    while todo:
        state = todo.pop()
        for thread in range(sizes[0]):
            for found in start.copy(state).step(thread):
                key = found.key()
                if key not in seen:
                    seen.add(key)
                    todo.append(key)
    return len(seen)


def wander(*sizes, fault, walks):
    """Take steps at random, thread by thread; raises `WrongError` if a state is reached that must not be."""
    for seed in range(walks):
        draw = random.Random(seed)
        model = Model(*sizes, fault=fault)
        while model.actors[0][:2] != ["leader", OVER]:
            thread = draw.randrange(sizes[0])
            for _ in range(draw.randrange(1, 20)):
                found = model.step(thread)
                if not found:
                    break
                model = draw.choice(found)


@pytest.mark.parametrize(
    "sizes", [(2, 2, 3, 2, 1), (2, 2, 2, 2, 2), (2, 2, 4, 2, 1), (2, 3, 2, 3, 1), (3, 3, 2, 2, 0)]
)
def test_in_every_order_of_steps_the_result_is_that_of_the_leader_alone(sizes):
    assert explore(*sizes) > 10_000


def test_so_it_is_with_more_threads_in_many_orders():
    wander(3, 2, 4, 4, 4, fault=None, walks=1000)
    wander(4, 3, 4, 6, 6, fault=None, walks=1000)


@pytest.mark.parametrize("fault", ["reuse", "open", "early"])
def test_the_model_finds_what_is_left_out(fault):
    with pytest.raises(WrongError):
        wander(3, 2, 4, 4, 4, fault=fault, walks=20_000)
