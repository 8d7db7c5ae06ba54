# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The short path from the call of a layer to its network; the locks and the commit of changes of layers."""

import functools

from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree
from cpython.ref cimport PyObject

cimport cython
cimport numpy as cnp

from fastgru._arrays cimport is_plain
from fastgru._atomics cimport count_of, count_up, exchange, load
from fastgru._core cimport Network
from fastgru._memory cimport allocated
from fastgru._ports cimport parts

cnp.import_array()


cdef extern from *:
    Py_ssize_t Py_REFCNT(object) noexcept
    ctypedef object (*vectorcallfunc)(object, PyObject *const *, size_t, PyObject *)
    ctypedef object (*ternaryfunc)(object, tuple, dict)
    ctypedef struct PyTypeObject:
        unsigned long tp_flags
        ternaryfunc tp_call
        Py_ssize_t tp_vectorcall_offset
    const int PY_VERSION_HEX
    const unsigned long Py_TPFLAGS_HAVE_VECTORCALL
    PyTypeObject *Py_TYPE(object) noexcept
    Py_ssize_t PyVectorcall_NARGS(size_t) noexcept
    Py_ssize_t PyTuple_GET_SIZE(PyObject *) noexcept
    PyObject *PyTuple_GET_ITEM(PyObject *, Py_ssize_t) noexcept
    ctypedef void *PyThread_type_lock
    const int NOWAIT_LOCK, PY_LOCK_ACQUIRED
    PyThread_type_lock PyThread_allocate_lock() noexcept
    void PyThread_free_lock(PyThread_type_lock) noexcept
    int PyThread_acquire_lock(PyThread_type_lock, int) noexcept
    int PyThread_acquire_lock_timed(PyThread_type_lock, long long, int) noexcept nogil
    void PyThread_release_lock(PyThread_type_lock) noexcept
    unsigned long PyThread_get_thread_ident() noexcept


@cython.final
@cython.auto_pickle(False)
cdef class Lock:
    """threading.RLock, which costs next to nothing where no other thread holds it."""

    cdef PyThread_type_lock lock
    cdef void *owner                                    # the thread that holds it, or NULL
    cdef Py_ssize_t depth                               # how many times it does

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError()

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cpdef int acquire(self) except -1:
        """Wait until no other thread holds the lock; a signal's handler may end this by raising."""
        cdef void *me = <void *> PyThread_get_thread_ident()
        cdef int status
        if load(&self.owner) == me:
            self.depth += 1
            return 0
        if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            while True:
                with nogil:
                    status = PyThread_acquire_lock_timed(self.lock, -1, 1)
                if status == PY_LOCK_ACQUIRED:
                    break
                PyErr_CheckSignals()
        self.depth = 1
        exchange(&self.owner, me)
        return 0

    cpdef int release(self) except -1:
        """Undo one `acquire` of this thread."""
        self.depth -= 1
        if self.depth == 0:
            exchange(&self.owner, NULL)
            PyThread_release_lock(self.lock)
        return 0

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()


cdef enum:
    LONG
    PLAIN
    RECORDS


@cython.auto_pickle(False)
cdef class Caller:
    """Base of layers: the short path of every call that needs no conversion in Python.

    It runs the network that `_long_call` has made, as long as no weight or flag in it has been set since.
    """

    cdef Network network
    cdef long long version                              # counts changes
    cdef long long own                                  # the version that the network was made of, and
    cdef tuple others                                   # other layers that are in it, with theirs
    cdef long long *versions
    cdef int way                                        # what kind of call is short
    cdef public Lock _lock
    cdef public object _state                           # a recorded one, or None
    cdef list other_state                               # memory for the next one, not shared
    cdef vectorcallfunc vectorcall

    def __cinit__(self):
        self.vectorcall = call_layer
        if PY_VERSION_HEX < 0x030C0000 and Py_TYPE(self).tp_call == CALL:  # later versions inherit the flag
            Py_TYPE(self).tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL
        self.other_state = [None]

    def __dealloc__(self):
        PyMem_RawFree(self.versions)

    @cython.critical_section
    cdef Network current(self, int *way):
        """The network if it is still valid, and what kind of call is short; else None."""
        cdef Py_ssize_t i
        if self.network is None or count_of(&self.version) != self.own:
            return None
        for i in range(len(self.others)):
            if count_of(&(<Caller> self.others[i]).version) != self.versions[i]:
                return None
        way[0] = self.way
        return self.network

    def _current_network(self):
        """The network that calls run, or None if it must be made again."""
        cdef int way
        return self.current(&way)

    def _changed(self):
        """Invalidate the networks that contain weights or flags of this layer."""
        count_up(&self.version)

    def _versions(self, tuple others):
        """What `_keep_network` wants, taken before weights and flags are read."""
        cdef Caller each
        found = [count_of(&self.version)]
        for each in others:
            found.append(count_of(&each.version))
        return found

    @cython.critical_section
    def _keep_network(self, Network network, tuple others, list versions, str way):
        """Let calls run this network until this layer, or one of those in it, changes.

        `way` is the kind of call on the short path: 'plain', or 'records' for a recorded state; None for no call.
        """
        cdef Py_ssize_t i
        cdef long long *taken = <long long *> allocated(len(others) * sizeof(long long))
        for i in range(len(others)):
            taken[i] = versions[1 + i]
        PyMem_RawFree(self.versions)
        self.network, self.own, self.others, self.versions = network, versions[0], others, taken
        self.way = LONG if way is None else PLAIN if way == "plain" else RECORDS

    def __call__(self, inputs, initial_state=None, mask=None, training=None, *, lengths=None, out=None):
        return self.result(inputs, initial_state, mask, training, lengths, out)

    cdef object result(self, inputs, initial_state, mask, training, lengths, out):
        """What a call returns."""
        cdef int way = LONG
        cdef Network network = self.current(&way)
        cdef object x, state, results
        cdef tuple given
        if way != LONG and (training is None or training is False):
            x, state = inputs, initial_state
            if type(inputs) is list:
                given = tuple(<list> inputs)  # a copy: another thread may change a list
                if len(given) > 0:
                    x = given[0]
                if len(given) > 1:
                    state = NotImplemented if initial_state is not None else given[1:]
            if way == PLAIN:
                results = network.call(x, state, mask, lengths, out)
                if results is not NotImplemented:
                    return results
            elif state is None:
                results = self.recorded(x, mask, lengths, out)
                if results is not NotImplemented:
                    return results
        return self._long_call(inputs, initial_state, mask, training, lengths, out)

    cdef object recorded(self, x, mask, lengths, out):
        """The result of a call from the recorded state, which the last state replaces."""
        cdef object old, results = NotImplemented
        cdef Lock lock = self._lock
        cdef Network network
        cdef int way = LONG
        lock.acquire()
        try:
            network = self.current(&way)  # here: while this thread waited, others may have changed the layer
            if way == RECORDS and self._state is not None:
                results = network.call(x, self._state, mask, lengths, out, self.other_state)
                if results is not NotImplemented:
                    with cython.critical_section(self):  # Python code may read the attribute
                        old, self._state = self._state, self.other_state[0]
                    self.other_state[0] = old if Py_REFCNT(old) == 1 else None
        finally:
            lock.release()
        return results


@cython.auto_pickle(False)
cdef class ModelCaller(Caller):
    """Base of models."""

    def __call__(self, inputs, mask=None, lengths=None, initial_state=None, out=None):
        cdef Network network = self.network
        cdef object x = inputs, results = NotImplemented
        cdef tuple given = None, others = None
        if self.way == PLAIN:
            if network.net.input_count > 1 or type(inputs) is list or type(inputs) is tuple:
                given = parts(inputs, network.net.input_count)
                x = None if given is None else given[0]
                others = None if given is None else given[1:]
            results = network.call(x, initial_state, mask, lengths, out, None, 0, others)
        if results is NotImplemented:
            return self._long_call(inputs, initial_state, mask, None, lengths, out)
        return results


def indices_of(x, long long low, long long limit):
    """A copy of indices (batch, timesteps), as int32 (batch, timesteps, 1).

    None if there are none, if they are no C-contiguous array of int32 or int64, or if one is less than `low` or
    not less than `limit`. Each is read once: another thread may write into the array.
    """
    cdef cnp.npy_intp shape[3]
    cdef cnp.ndarray copied
    cdef cnp.int32_t *to
    cdef const void *given
    cdef Py_ssize_t i
    cdef long long index
    cdef bint wide = is_plain(x, 2, cnp.NPY_INT64)
    if not (wide or is_plain(x, 2, cnp.NPY_INT32)) or not cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray> x):
        return None
    shape[0], shape[1], shape[2] = cnp.PyArray_DIMS(<cnp.ndarray> x)[0], cnp.PyArray_DIMS(<cnp.ndarray> x)[1], 1
    copied = cnp.PyArray_EMPTY(3, shape, cnp.NPY_INT32, 0)
    to, given = <cnp.int32_t *> cnp.PyArray_DATA(copied), cnp.PyArray_DATA(<cnp.ndarray> x)
    for i in range(shape[0] * shape[1]):
        index = (<const cnp.int64_t *> given)[i] if wide else (<const cnp.int32_t *> given)[i]
        if index < low or index >= limit:
            return None
        to[i] = <cnp.int32_t> index
    return copied if shape[0] * shape[1] else None


def compiled(method):
    """A compiled `call` with the signature and docstring of `method`: `Caller.__call__`, with its second to
    fourth arguments in the order of `GRU.call` or of the other layers' `call`."""
    made = mask_first() if method.__code__.co_varnames[2] == "mask" else training_first()
    return functools.update_wrapper(made, method)


def mask_first():
    def call(
        Caller self not None, inputs, mask=None, training=None, initial_state=None, *, lengths=None, out=None,
    ):
        return self.result(inputs, initial_state, mask, training, lengths, out)
    return call


def training_first():
    def call(
        Caller self not None, inputs, training=None, mask=None, initial_state=None, *, lengths=None, out=None,
    ):
        return self.result(inputs, initial_state, mask, training, lengths, out)
    return call


cdef tuple ARGUMENTS = ("inputs", "initial_state", "mask", "training", "lengths", "out")


cdef object call_layer(object layer, PyObject *const *values, size_t flags, PyObject *names):
    """`Caller.__call__` by vectorcall: in the usual case without a tuple and a dict of the arguments."""
    cdef PyObject *given[6]
    cdef Py_ssize_t i, k, count = PyVectorcall_NARGS(flags)
    cdef Py_ssize_t named = 0 if names == NULL else PyTuple_GET_SIZE(names)
    cdef bint usual = count <= 4 and Py_TYPE(layer).tp_call == CALL  # False if a subclass defines __call__
    if usual:
        for k in range(6):
            given[k] = values[k] if k < count else <PyObject *> None
        given[0] = values[0] if count else NULL
    for i in range(named):
        k = count
        while k < 6 and PyTuple_GET_ITEM(<PyObject *> ARGUMENTS, k) != PyTuple_GET_ITEM(names, i):
            k += 1
        if not usual or k == 6:
            usual = False
            break
        given[k] = values[count + i]
    if usual and given[0] != NULL:
        return (<Caller> layer).result(
            <object> given[0], <object> given[1], <object> given[2], <object> given[3], <object> given[4],
            <object> given[5])
    cdef list arguments = []
    cdef dict keywords = {}
    for i in range(count):  # no comprehension: when it fails, its objects are given up twice
        arguments.append(<object> values[i])
    for i in range(named):
        keywords[<object> PyTuple_GET_ITEM(names, i)] = <object> values[count + i]
    return Py_TYPE(layer).tp_call(layer, tuple(arguments), keywords)


cdef ternaryfunc CALL = (<PyTypeObject *> Caller).tp_call
cdef Caller _caller = Caller.__new__(Caller)
(<PyTypeObject *> Caller).tp_vectorcall_offset = <char *> &_caller.vectorcall - <char *> <PyObject *> _caller
(<PyTypeObject *> Caller).tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL


@cython.final
@cython.auto_pickle(False)
cdef class Holding:
    """Holds locks, taken in their order, while a block runs; leaving it takes no memory.

    Python handles no interrupt between `__enter__` of a compiled class and the block; of a Python class it could.
    """

    cdef tuple locks
    cdef Py_ssize_t held

    def __init__(self, locks):
        self.locks = tuple(locks)

    def __enter__(self):
        try:
            while self.held < len(self.locks):
                (<Lock> self.locks[self.held]).acquire()
                self.held += 1
        except BaseException:
            self.release()
            raise

    def __exit__(self, *_):
        self.release()

    cdef int release(self) except -1:
        while self.held > 0:
            self.held -= 1
            (<Lock> self.locks[self.held]).release()
        return 0


def commit(list changes, list changed):
    """Set existing attributes, (object, name, value); then invalidate the networks of the `changed` layers.

    Allocates nothing, so either all is done, or nothing.
    """
    cdef tuple change
    cdef Caller layer
    for change in changes:
        setattr(change[0], change[1], change[2])
    for layer in changed:
        count_up(&layer.version)
