# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The compiled half of fastgru: weights ready to run (Plan) and the loop over time.

Trusts its callers: whatever a user can get wrong has been found by the Python half.

Without a GIL, too: a Plan is not written into but for its spare memory, which is exchanged in one piece, as is
the sign that a stream is running; what a pool knows of its slots is read and written in critical sections.
"""

import functools
import threading

from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport PyObject
from libc.string cimport memcpy, memset

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._blas cimport Blas, bind
from fastgru._engine cimport (
    FASTGRU_ACTIVATION_COUNT,
    FASTGRU_AVE,
    FASTGRU_CAST,
    FASTGRU_CHAINS,
    FASTGRU_GRU,
    FASTGRU_MUL,
    FASTGRU_SUM,
    fastgru_activation_names,
    fastgru_cast,
    fastgru_connect,
    fastgru_engine,
    fastgru_functions,
    fastgru_gates,
    fastgru_kernels,
    fastgru_kernels_at,
    fastgru_network,
    fastgru_node,
    fastgru_pack,
    fastgru_packed_size,
    fastgru_run_network,
    fastgru_run_of,
    fastgru_value,
    fastgru_workspace,
)
from fastgru._engines cimport ALIGNMENT, Engine, run_engine, scratch_of_engine

cnp.import_array()

cdef Blas blas
cdef object binding = threading.Lock()                  # held where blas is filled

cdef dict ACTIVATION_IDS = {
    fastgru_activation_names[i].decode(): i for i in range(FASTGRU_ACTIVATION_COUNT)
}


cdef const fastgru_kernels *kernels_of(isa) except NULL:
    """The row of the named instruction set, or the fastest for None."""
    cdef int index = 0
    cdef const fastgru_kernels *row = fastgru_kernels_at(0)
    if isa is None:
        return row
    while row != NULL and row.isa.decode() != isa:
        index += 1
        row = fastgru_kernels_at(index)
    if row == NULL:
        raise ValueError(f"isa must be one of {isas()}, got {isa!r}")
    return row


def isas():
    """Names of the instruction sets that this machine can run, the fastest first."""
    cdef int index = 0
    names = []
    while fastgru_kernels_at(index) != NULL:
        names.append(fastgru_kernels_at(index).isa.decode())
        index += 1
    return tuple(names)


def packed_isas():
    """Those of `isas()` that have packed kernels whose bits agree with each other's."""
    return tuple(isa for isa in isas() if kernels_of(isa).fused)


def float16_isas():
    """Those of `isas()` that compute with float16 weights."""
    return tuple(isa for isa in isas() if kernels_of(isa).f16.sequence != NULL)


def activations():
    """Names of the activations that have a kernel."""
    return tuple(ACTIVATION_IDS)


def activate(str name, cnp.ndarray x, double alpha=0.0, isa=None):
    """The named activation of a float32 or float64 array, elementwise, as a new array."""
    cdef const fastgru_kernels *kernels = kernels_of(isa)
    cdef int activation = ACTIVATION_IDS[name]
    cdef cnp.ndarray source = np.require(x, requirements=["C", "A"])
    cdef cnp.ndarray result = np.empty_like(source)
    cdef const fastgru_functions *functions = (
        &kernels.f32_functions if source.itemsize == 4 else &kernels.f64_functions)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(source)
    with nogil:
        functions.activate(activation, alpha, n, cnp.PyArray_DATA(source), cnp.PyArray_DATA(result))
    return result.reshape(np.shape(x))


def lanes(isa=None):
    """Floats in a vector."""
    return kernels_of(isa).f32.vlen


def multiply_adds(Py_ssize_t turns, isa=None):
    """Fused multiply-adds on float32 and nothing else; how many operations these were, two each."""
    cdef const fastgru_kernels *kernels = kernels_of(isa)
    with nogil:
        kernels.roofline.multiply_adds(turns)
    return 2 * FASTGRU_CHAINS * kernels.f32.vlen * turns


def reads(cnp.ndarray memory, Py_ssize_t turns, isa=None):
    """Read a contiguous float32 array over and over and do nothing else; how many bytes these were.

    Whole blocks of `lanes()` times some vectors are read: what is left at the end is not.
    """
    cdef const fastgru_kernels *kernels = kernels_of(isa)
    cdef Py_ssize_t block = FASTGRU_CHAINS * kernels.f32.vlen
    cdef Py_ssize_t blocks = cnp.PyArray_SIZE(memory) // block
    with nogil:
        kernels.roofline.reads(<const float *> cnp.PyArray_DATA(memory), blocks, turns)
    return 4 * block * blocks * turns


cdef extern from *:
    """
    /* *place := value, returns what was there, in one piece: a GIL is held where there is one. */
    #if !defined(Py_GIL_DISABLED)
    static inline void *fastgru_exchange(void **place, void *value)
    {
        void *was = *place;
        *place = value;
        return was;
    }
    #define fastgru_load(place) (*(place))
    #elif defined(_MSC_VER)
    #include <intrin.h>
    #define fastgru_exchange(place, value) _InterlockedExchangePointer(place, value)
    #define fastgru_load(place) (*(void *volatile *)(place))
    #else
    #define fastgru_exchange(place, value) __atomic_exchange_n(place, value, __ATOMIC_ACQ_REL)
    #define fastgru_load(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    #endif
    """
    void *exchange "fastgru_exchange" (void **place, void *value) noexcept
    void *load "fastgru_load" (void **place) noexcept
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


cdef struct Memory:
    # Scratch of a call, and before it what the next call with it is to know.
    size_t size                                         # in bytes, of the scratch
    Py_ssize_t batch, timesteps                         # that it has been enough for, with or without
    bint masked                                         # a mask; timesteps of 0: for none
    Py_ssize_t out_stride                               # of rows
    unsigned walk                                       # which way packed weights are walked next


cdef inline char *aligned(void *memory) noexcept nogil:
    """The first aligned byte of memory that is ALIGNMENT bytes longer than needed."""
    return <char *> memory + (ALIGNMENT - <size_t> memory % ALIGNMENT) % ALIGNMENT


cdef inline char *scratch_of(Memory *memory) noexcept nogil:
    return aligned(memory + 1)


cdef Memory *allocate(size_t size) except NULL:
    cdef Memory *memory = <Memory *> PyMem_RawMalloc(sizeof(Memory) + size + ALIGNMENT)
    if memory == NULL:
        raise MemoryError()
    memory.size, memory.walk, memory.batch, memory.timesteps = size, 0, 0, 0
    return memory


cdef void *allocated(size_t size) except NULL:
    """Memory of zeros."""
    cdef void *memory = PyMem_RawCalloc(size + 1, 1)
    if memory == NULL:
        raise MemoryError()
    return memory


cdef Memory *take(Memory **spare, size_t size) except NULL:
    """The spare memory if it is there and large enough, else new memory."""
    cdef Memory *memory = <Memory *> exchange(<void **> spare, NULL)
    if memory != NULL and memory.size >= size:
        return memory
    PyMem_RawFree(memory)
    return allocate(size)


cdef void give_back(Memory **spare, Memory *memory) noexcept:
    """Keep the larger of this and the spare memory."""
    cdef Memory *other = <Memory *> exchange(<void **> spare, memory)
    if other != NULL and other.size > memory.size:
        other = <Memory *> exchange(<void **> spare, other)
    PyMem_RawFree(other)


cpdef bint rows_are_whole(cnp.ndarray array) noexcept:
    """Does the last axis lie side by side, and does every row start at an element?"""
    cdef int axis, last = cnp.PyArray_NDIM(array) - 1
    cdef Py_ssize_t itemsize = cnp.PyArray_ITEMSIZE(array)
    if cnp.PyArray_IS_C_CONTIGUOUS(array) and cnp.PyArray_ISALIGNED(array):
        return True
    for axis in range(last):
        if cnp.PyArray_STRIDES(array)[axis] % itemsize:
            return False
    return cnp.PyArray_ISALIGNED(array) and (
        cnp.PyArray_DIMS(array)[last] <= 1 or cnp.PyArray_STRIDES(array)[last] == itemsize
    )


cdef inline bint is_plain(array, int ndim, int typenum) noexcept:
    """No subclass, of that rank and type, aligned and in the machine's byte order?"""
    return (
        cnp.PyArray_CheckExact(array) and cnp.PyArray_NDIM(<cnp.ndarray> array) == ndim
        and cnp.PyArray_TYPE(<cnp.ndarray> array) == typenum and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray> array)
    )


cdef inline bint has_shape(cnp.ndarray array, const cnp.npy_intp *shape) noexcept:
    """Are the array's axes as long as that?"""
    cdef int axis
    for axis in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_DIMS(array)[axis] != shape[axis]:
            return False
    return True


cdef void extent(cnp.ndarray array, char **first, char **end) noexcept:
    """The bytes between which an array that is not empty lies."""
    cdef int axis
    cdef Py_ssize_t reach
    first[0] = <char *> cnp.PyArray_DATA(array)
    end[0] = first[0] + cnp.PyArray_ITEMSIZE(array)
    for axis in range(cnp.PyArray_NDIM(array)):
        reach = (cnp.PyArray_DIMS(array)[axis] - 1) * cnp.PyArray_STRIDES(array)[axis]
        if reach < 0:
            first[0] += reach
        else:
            end[0] += reach


cdef bint overlap(cnp.ndarray array, cnp.ndarray other) noexcept:
    """May they share memory? None shares none."""
    cdef char *first
    cdef char *end
    cdef char *other_first
    cdef char *other_end
    if other is None or cnp.PyArray_SIZE(other) == 0:
        return False
    extent(array, &first, &end)
    extent(other, &other_first, &other_end)
    return first < other_end and other_first < end


@cython.final
@cython.auto_pickle(False)
cdef class Plan:
    """Weights of one layer, ready to run; immutable, shared by any number of threads.

    Parameters
    ----------
    kernel : ndarray, shape (features, 3 * units)
        float32 or float64, C-contiguous, like the rest.
    recurrent_kernel : ndarray, shape (units, 3 * units)
    bias : ndarray or None
        (3 * units,), or (2, 3 * units) with `reset_after`: input bias, recurrent bias.
    reset_after : bool
    activation, recurrent_activation : (str, float)
        Name of a kernel and its parameter.
    engine : {'packed', 'blas'}
        With 'packed' weights are copied, with 'blas' referred to.
    isa : str, optional
        Instruction set, one of `isas()`; the fastest by default.
    float16 : bool
        Keep packed weights in float16? They must be float32 without a value that it cannot hold.
    """

    cdef readonly int features, units
    cdef readonly bint reset_after
    cdef readonly str isa, engine
    cdef int typenum                                    # of all arrays
    cdef Engine ready
    cdef tuple arrays                                   # that it points into

    def __init__(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias, bint reset_after,
        tuple activation, tuple recurrent_activation, str engine, isa=None, bint float16=False,
    ):
        cdef const fastgru_kernels *kernels = kernels_of(isa)
        self.isa, self.engine, self.typenum = kernels.isa.decode(), engine, cnp.PyArray_TYPE(kernel)
        self.features, self.units, self.reset_after = kernel.shape[0], recurrent_kernel.shape[0], reset_after
        self.ready.itemsize = kernel.itemsize
        self.ready.layer.features, self.ready.layer.units = self.features, self.units
        self.ready.layer.reset_after = reset_after
        self.ready.layer.activation, self.ready.layer.alpha = ACTIVATION_IDS[activation[0]], activation[1]
        self.ready.layer.recurrent_activation = ACTIVATION_IDS[recurrent_activation[0]]
        self.ready.layer.recurrent_alpha = recurrent_activation[1]
        if engine == "packed":
            self.ready.layer.kernels = &kernels.f16 if float16 else (
                &kernels.f32 if kernel.itemsize == 4 else &kernels.f64)
            self.pack(kernel, recurrent_kernel, bias)
        else:
            with binding:
                bind(&blas)
            self.ready.blas = &blas
            self.ready.functions = &kernels.f32_functions if kernel.itemsize == 4 else &kernels.f64_functions
            self.refer_to(kernel, recurrent_kernel, bias)

    @property
    def nbytes(self):
        """Bytes of the weights as they are read."""
        if self.ready.layer.kernels != NULL:
            return fastgru_packed_size(&self.ready.layer)
        return sum(array.nbytes for array in self.arrays)

    cdef int pack(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias,
    ) except -1:
        """What the packed engine needs beside the settings of the layer: a copy of the weights."""
        cdef cnp.ndarray packed = np.empty(fastgru_packed_size(&self.ready.layer) + ALIGNMENT, np.uint8)
        self.arrays = (packed,)
        fastgru_pack(
            &self.ready.layer, cnp.PyArray_DATA(kernel), cnp.PyArray_DATA(recurrent_kernel),
            NULL if bias is None else cnp.PyArray_DATA(bias), aligned(cnp.PyArray_DATA(packed)))
        return 0

    cdef int refer_to(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias,
    ) except -1:
        """What the BLAS engine needs beside the settings of the layer: the weights themselves."""
        cdef fastgru_gates *template = &self.ready.template
        cdef cnp.ndarray sums = np.zeros(3 * self.units, kernel.dtype)
        cdef cnp.ndarray recurrent_bias = np.zeros(self.units, kernel.dtype)
        if bias is not None and self.reset_after:
            # z and r see only the sum of both biases; the candidate's recurrent one is reset with h.Uh
            sums[:] = bias[0]
            sums[:2 * self.units] += bias[1, :2 * self.units]
            recurrent_bias[:] = bias[1, 2 * self.units:]
        elif bias is not None:
            sums[:] = bias
        self.arrays = kernel, recurrent_kernel, sums, recurrent_bias
        self.ready.kernel = <char *> cnp.PyArray_DATA(kernel)
        self.ready.recurrent_kernel = <char *> cnp.PyArray_DATA(recurrent_kernel)
        template.units = self.units
        template.activation, template.alpha = self.ready.layer.activation, self.ready.layer.alpha
        template.recurrent_activation = self.ready.layer.recurrent_activation
        template.recurrent_alpha = self.ready.layer.recurrent_alpha
        template.bias, template.recurrent_bias = cnp.PyArray_DATA(sums), cnp.PyArray_DATA(recurrent_bias)
        return 0


cdef inline Py_ssize_t stride(cnp.ndarray array, int axis) noexcept:
    """In elements."""
    return cnp.PyArray_STRIDES(array)[axis] // cnp.PyArray_ITEMSIZE(array)


# ---- networks ------------------------------------------------------------------------------


cdef size_t TOO_LARGE = <size_t> -1

cdef fastgru_engine ENGINE
ENGINE.scratch, ENGINE.run = scratch_of_engine, run_engine

cdef enum:
    FEW_LENGTHS = 32                                    # that are kept on the stack

cdef dict KINDS = {"cast": FASTGRU_CAST, "sum": FASTGRU_SUM, "mul": FASTGRU_MUL, "ave": FASTGRU_AVE}


cdef cnp.ndarray converted(cnp.ndarray array, int typenum):
    """A C-contiguous array of another float type; what it can't hold is infinite. None: it is no float array."""
    cdef cnp.ndarray result
    cdef int last = cnp.PyArray_NDIM(array) - 1
    cdef int kind = cnp.PyArray_TYPE(array)
    cdef Py_ssize_t n, size = cnp.PyArray_ITEMSIZE(array), stride
    cdef char *target
    cdef cnp.flatiter rows
    if not (
        (kind == cnp.NPY_FLOAT or kind == cnp.NPY_DOUBLE or kind == cnp.NPY_FLOAT16)
        and cnp.PyArray_ISNOTSWAPPED(array)
    ):
        return None
    result = cnp.PyArray_EMPTY(last + 1, cnp.PyArray_DIMS(array), typenum, 0)
    target = <char *> cnp.PyArray_DATA(result)
    n, stride = cnp.PyArray_DIMS(array)[last], cnp.PyArray_STRIDES(array)[last]
    if cnp.PyArray_SIZE(array) == 0:
        return result
    if cnp.PyArray_IS_C_CONTIGUOUS(array):
        fastgru_cast(cnp.PyArray_SIZE(array), cnp.PyArray_DATA(array), size, size, target,
                     cnp.PyArray_ITEMSIZE(result))
        return result
    rows = cnp.PyArray_IterAllButAxis(array, &last)
    while cnp.PyArray_ITER_NOTDONE(rows):
        fastgru_cast(n, cnp.PyArray_ITER_DATA(rows), size, stride, target, cnp.PyArray_ITEMSIZE(result))
        target += n * cnp.PyArray_ITEMSIZE(result)
        cnp.PyArray_ITER_NEXT(rows)
    return result


cdef int copy_lengths(lengths, Py_ssize_t batch, Py_ssize_t timesteps, Py_ssize_t *steps) except -2:
    """steps, (batch,), := lengths from 0 to timesteps; -1 if they are to be converted or complained of.

    Returns whether any row ends before the last timestep.
    """
    cdef Py_ssize_t i, gap
    cdef const char *data
    cdef bint ended = False
    if type(lengths) is list or type(lengths) is tuple:
        if len(lengths) != batch:
            return -1
        for i in range(batch):
            if i >= len(lengths):
                return -1
            length = lengths[i]
            if type(length) is not int or not 0 <= length <= timesteps:
                return -1
            steps[i] = length
            ended |= steps[i] != timesteps
        return ended
    if not is_plain(lengths, 1, cnp.NPY_INTP) or cnp.PyArray_DIMS(<cnp.ndarray> lengths)[0] != batch:
        return -1
    data = <const char *> cnp.PyArray_DATA(<cnp.ndarray> lengths)
    gap = cnp.PyArray_STRIDES(<cnp.ndarray> lengths)[0]
    for i in range(batch):  # copied first, for another thread may write into what was given
        steps[i] = (<const Py_ssize_t *> (data + i * gap))[0]
        if not 0 <= steps[i] <= timesteps:
            return -1
        ended |= steps[i] != timesteps
    return ended


cdef only_item(given):
    """The item of a list or tuple of one; NotImplemented of all else."""
    if type(given) is list and len(<list> given) == 1:
        return (<list> given)[0]
    if type(given) is tuple and len(<tuple> given) == 1:
        return (<tuple> given)[0]
    return NotImplemented


@cython.final
@cython.auto_pickle(False)
cdef class Network:
    """Nodes in running order over packed weights; immutable, shared by any number of threads.

    Parameters
    ----------
    features : int
        Width of the input.
    dtype : dtype
        Of the input.
    values : sequence of (int, dtype, bool)
        What nodes write, from number 1 on: width, type, and whether of the last step alone. Number 0 is the input.
    nodes : sequence of tuple
        ("gru", Plan, input, output, column, go_backwards, turned, zero_output_for_mask, state): `column` is where
        its units begin in the output's width, `turned` whether outputs are written from the last timestep on,
        `state` the number of its state. ("cast", input, output). ("sum", "mul" or "ave", input, other, output).
    outputs : sequence of int
        The values that a call returns.
    time_major, return_state : bool
        Of a call.
    optional : bool
        May a call be given None in place of one of several initial states?
    chunk_bytes, chunk_steps : int
        Of what nodes hand to each other; 0: as many as stay in the cache.
    """

    cdef fastgru_network net
    cdef readonly tuple plans                           # in the order of their states
    cdef readonly bint time_major, return_state, optional
    cdef readonly Py_ssize_t features
    cdef readonly object dtype                          # of the input
    cdef readonly tuple flags                           # time_major, of every step, return_state
    cdef int typenum
    cdef int output_types[2]
    cdef Py_ssize_t *state_units                        # of each state, and
    cdef int *state_types
    cdef Memory *spare                                  # of a call before, for the next one

    def __init__(
        self, Py_ssize_t features, dtype, values, nodes, outputs, bint time_major, bint return_state,
        bint optional=False, size_t chunk_bytes=0, Py_ssize_t chunk_steps=0,
    ):
        cdef int i, kinds = len(nodes), count = len(values) + 1
        cdef fastgru_node *node
        cdef Plan plan
        if self.net.nodes != NULL:
            raise RuntimeError("__init__ must be called once")
        grus = [each for each in nodes if each[0] == "gru"]
        self.net.nodes = <fastgru_node *> allocated(kinds * sizeof(fastgru_node))
        self.net.values = <fastgru_value *> allocated(count * sizeof(fastgru_value))
        self.state_units = <Py_ssize_t *> allocated(len(grus) * sizeof(Py_ssize_t))
        self.state_types = <int *> allocated(len(grus) * sizeof(int))
        self.net.node_count, self.net.value_count, self.net.state_count = kinds, count, len(grus)
        self.features, self.dtype, self.typenum = features, np.dtype(dtype), np.dtype(dtype).num
        self.time_major, self.return_state, self.optional = time_major, return_state, optional
        dtypes = [np.dtype(dtype)] + [np.dtype(each[1]) for each in values]
        self.net.values[0].width, self.net.values[0].itemsize = features, dtypes[0].itemsize
        for i in range(1, count):
            self.net.values[i].width, self.net.values[i].itemsize = values[i - 1][0], dtypes[i].itemsize
            self.net.values[i].last = values[i - 1][2]
        plans = [None] * len(grus)
        for i in range(kinds):
            node, each = &self.net.nodes[i], nodes[i]
            if each[0] == "gru":
                plan, node.kind, node.engine = each[1], FASTGRU_GRU, &ENGINE
                node.weights, node.units = &plan.ready, plan.units
                node.input, node.output, node.column, node.go_backwards, node.turned = each[2:7]
                node.zero_output_for_mask, node.state = each[7:9]
                plans[node.state] = plan
                self.state_units[node.state], self.state_types[node.state] = plan.units, plan.typenum
            else:
                node.kind, node.input, node.output = KINDS[each[0]], each[1], each[len(each) - 1]
                node.other = each[2]
        self.plans = tuple(plans)
        self.net.output_count = len(outputs)
        for i in range(len(outputs)):
            self.net.outputs[i], self.output_types[i] = outputs[i], dtypes[outputs[i]].num
        self.net.chunk_bytes, self.net.chunk_steps = chunk_bytes, chunk_steps
        self.flags = time_major, not self.net.values[self.net.outputs[0]].last, return_state
        if fastgru_connect(&self.net):
            raise ValueError("nodes must be in running order")

    def __dealloc__(self):
        PyMem_RawFree(self.net.nodes)
        PyMem_RawFree(self.net.values)
        PyMem_RawFree(self.state_units)
        PyMem_RawFree(self.state_types)
        PyMem_RawFree(self.spare)

    cpdef call(self, x, initial_state, mask, lengths, out, list states=None):
        """What a layer's call returns; NotImplemented if Python is to convert an argument, or to complain of one.

        Parameters
        ----------
        x : ndarray, shape (batch, timesteps, features), or the first two swapped if `time_major`
            Of any float type.
        initial_state : ndarray, list or tuple of ndarrays, or None
            (batch, units) each, of the type that is computed in, C-contiguous.
        mask : bool ndarray or None
            (batch, timesteps), time-major as x; False: the row does not take part in the step.
        lengths : list of int, intp ndarray or None
            (batch,): in place of a mask that is true at so many first steps of each row.
        out : ndarray or None
            Overwritten by the output, if there is one.
        states : list, optional
            Overwritten with the last states, in the arrays that it holds, if there are such.
        """
        cdef fastgru_run_of run
        cdef cnp.npy_intp shape[3]
        cdef cnp.npy_intp state_shape[2]
        cdef cnp.npy_intp *sizes
        cdef cnp.ndarray array, output
        cdef Py_ssize_t few[FEW_LENGTHS]
        cdef Py_ssize_t *steps = few
        cdef int i, axes, batch_axis = self.time_major, time_axis = not self.time_major
        cdef int ended, count = self.net.state_count, outputs = self.net.output_count
        cdef fastgru_value *value
        cdef list results = None
        cdef tuple given = None
        cdef cnp.ndarray more
        if not cnp.PyArray_CheckExact(x) or cnp.PyArray_NDIM(<cnp.ndarray> x) != 3:
            return NotImplemented
        array = <cnp.ndarray> x
        sizes = cnp.PyArray_DIMS(array)
        if sizes[time_axis] == 0 or sizes[2] != self.features:
            return NotImplemented
        if not is_plain(array, 3, self.typenum) or not rows_are_whole(array):
            array = converted(array, self.typenum)
            if array is None:
                return NotImplemented
            sizes = cnp.PyArray_DIMS(array)
        shape[0], shape[1] = sizes[0], sizes[1]
        state_shape[0] = sizes[batch_axis]
        if mask is not None and (
            lengths is not None or not (is_plain(mask, 2, cnp.NPY_BOOL) and has_shape(mask, shape))
        ):
            return NotImplemented

        # states that are given
        if count == 1 and initial_state is not None and not cnp.PyArray_CheckExact(initial_state):
            initial_state = only_item(initial_state)
            if initial_state is None and not self.optional:
                return NotImplemented
        if initial_state is None:
            pass
        elif cnp.PyArray_CheckExact(initial_state):
            if count > 1:
                return NotImplemented
            state_shape[1] = self.state_units[0]
            if not is_state(initial_state, self.state_types[0], state_shape):
                return NotImplemented
        elif type(initial_state) is list or type(initial_state) is tuple:
            given = tuple(initial_state)  # which nobody changes meanwhile
            if len(given) != count:
                return NotImplemented
            for i in range(count):
                state_shape[1] = self.state_units[i]
                if given[i] is None and self.optional:
                    continue
                if not is_state(given[i], self.state_types[i], state_shape):
                    return NotImplemented
        else:
            return NotImplemented

        # what is returned: no allocation may fail once anything has been overwritten
        if outputs > 1 or self.return_state:
            results = [None] * (outputs + (count if self.return_state else 0))
        for i in range(outputs):
            value = &self.net.values[self.net.outputs[i]]
            axes, shape[2 - value.last] = 3 - value.last, value.width
            if value.last:
                shape[0] = state_shape[0]
            if out is None:
                output = cnp.PyArray_EMPTY(axes, shape, self.output_types[i], 0)
            elif (
                outputs == 1 and is_plain(out, axes, self.output_types[i])
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out) and has_shape(out, shape)
                and rows_are_whole(out) and not touches(out, x, initial_state, given, mask, lengths)
            ):
                output = <cnp.ndarray> out
            else:
                return NotImplemented
            if results is not None:
                results[i] = output
            self.direct(&run, i, output)
        if self.return_state:
            self.add_states(results, outputs, state_shape[0])
        if states is not None and not self.can_write(states, state_shape[0]):
            states[:] = [None] * count
            self.add_states(states, 0, state_shape[0])

        self.describe(&run, array, mask)
        if lengths is not None:
            if run.batch > FEW_LENGTHS:
                more = cnp.PyArray_EMPTY(1, state_shape, cnp.NPY_INTP, 0)
                steps = <Py_ssize_t *> cnp.PyArray_DATA(more)
            ended = copy_lengths(lengths, run.batch, run.timesteps, steps)
            if ended < 0:
                return NotImplemented
            run.lengths = steps if ended else NULL
        if run.batch and states is not None:
            self.execute(&run, given, initial_state, states, 0)
        elif run.batch:
            self.execute(&run, given, initial_state, results if self.return_state else None, outputs)
        if states is not None and self.return_state:
            for i in range(count):
                copy_state(results[outputs + i], states[i])
        return output if results is None else results

    cdef int add_states(self, list states, int first, Py_ssize_t batch) except -1:
        """Put new arrays for the last states of all GRUs into a list, from an index on."""
        cdef cnp.npy_intp shape[2]
        cdef int i
        shape[0] = batch
        for i in range(self.net.state_count):
            shape[1] = self.state_units[i]
            states[first + i] = cnp.PyArray_EMPTY(2, shape, self.state_types[i], 0)
        return 0

    cdef bint can_write(self, list states, Py_ssize_t batch) noexcept:
        """True of arrays that last states fit into."""
        cdef cnp.npy_intp shape[2]
        cdef int i
        shape[0] = batch
        if len(states) != self.net.state_count:
            return False
        for i in range(self.net.state_count):
            shape[1] = self.state_units[i]
            if not is_state(states[i], self.state_types[i], shape):
                return False
        return True

    def run(self, cnp.ndarray x, tuple initial_states, tuple states, tuple out, mask=None, lengths=None):
        """Run a call of arrays that are known to be right and share no memory.

        Parameters
        ----------
        x : ndarray, shape (batch, timesteps, features), or the first two swapped if `time_major`
            Of the network's dtype, the last axis contiguous.
        initial_states : tuple of ndarray or None
            (batch, units) each, C-contiguous; None: zeros.
        states : tuple of ndarray or None
            (batch, units) each, C-contiguous: overwritten with the last ones. None: not wanted.
        out : tuple of ndarray
            Overwritten with the outputs; the last axis contiguous.
        mask : bool ndarray or None
            (batch, timesteps), time-major as x.
        lengths : intp ndarray or None
            (batch,), C-contiguous, from 0 to timesteps.
        """
        cdef fastgru_run_of run
        cdef int i
        for i in range(len(out)):
            self.direct(&run, i, out[i])
        self.describe(&run, x, mask)
        if lengths is not None:
            run.lengths = <const Py_ssize_t *> cnp.PyArray_DATA(<cnp.ndarray> lengths)
        self.execute(&run, initial_states, None, list(states), 0)

    cdef inline void direct(self, fastgru_run_of *run, int i, cnp.ndarray output) noexcept:
        """Say where an output lies."""
        cdef bint last = self.net.values[self.net.outputs[i]].last
        run.out[i] = cnp.PyArray_DATA(output)
        run.out_batch_stride[i] = stride(output, 0 if last else self.time_major)
        run.out_time_stride[i] = 0 if last else stride(output, not self.time_major)

    cdef inline void describe(self, fastgru_run_of *run, cnp.ndarray x, mask) noexcept:
        """Say where the input and the mask lie; there are no lengths."""
        cdef int batch_axis = self.time_major, time_axis = not self.time_major
        run.batch, run.timesteps = cnp.PyArray_DIMS(x)[batch_axis], cnp.PyArray_DIMS(x)[time_axis]
        run.x = cnp.PyArray_DATA(x)
        run.x_batch_stride, run.x_time_stride = stride(x, batch_axis), stride(x, time_axis)
        run.mask, run.mask_batch_stride, run.mask_time_stride, run.lengths = NULL, 0, 0, NULL
        if mask is not None:
            run.mask = <const unsigned char *> cnp.PyArray_DATA(<cnp.ndarray> mask)
            run.mask_batch_stride = cnp.PyArray_STRIDES(<cnp.ndarray> mask)[batch_axis]
            run.mask_time_stride = cnp.PyArray_STRIDES(<cnp.ndarray> mask)[time_axis]

    cdef int execute(
        self, fastgru_run_of *run, tuple given, initial_state, list last, int first,
    ) except -1:
        """Run what has been described, from given states, or from the one of a network that has one.

        Arrays for the last states, if they are wanted, are in the list `last` from an index on.
        """
        cdef int i, count = self.net.state_count
        cdef size_t bytes, tables = (2 * count * sizeof(void *) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        cdef bint masked = run.mask != NULL
        cdef Memory *memory = <Memory *> exchange(<void **> &self.spare, NULL)
        cdef void **table
        if (
            memory == NULL or memory.batch != run.batch or memory.timesteps != run.timesteps
            or memory.masked != masked or memory.out_stride != run.out_batch_stride[0] or run.lengths != NULL
        ):
            bytes = fastgru_workspace(&self.net, run)
            if bytes == TOO_LARGE:
                PyMem_RawFree(memory)
                raise MemoryError()
            if memory == NULL or memory.size < tables + bytes:
                PyMem_RawFree(memory)
                memory = allocate(tables + bytes)
            memory.batch, memory.masked, memory.out_stride = run.batch, masked, run.out_batch_stride[0]
            memory.timesteps = 0 if run.lengths != NULL else run.timesteps
        table = <void **> scratch_of(memory)
        for i in range(count):
            table[i] = table[count + i] = NULL
            if given is not None:
                if given[i] is not None:
                    table[i] = cnp.PyArray_DATA(<cnp.ndarray> given[i])
            elif initial_state is not None:
                table[i] = cnp.PyArray_DATA(<cnp.ndarray> initial_state)
            if last is not None and last[first + i] is not None:
                table[count + i] = cnp.PyArray_DATA(<cnp.ndarray> last[first + i])
        run.initial_states, run.states = <const void *const *> table, <void *const *> table + count
        run.memory, run.walk = <char *> table + tables, memory.walk
        with nogil:
            fastgru_run_network(&self.net, run)
        memory.walk = run.walk
        give_back(&self.spare, memory)
        return 0


cdef inline void copy_state(cnp.ndarray to, cnp.ndarray array) noexcept:
    memcpy(cnp.PyArray_DATA(to), cnp.PyArray_DATA(array), cnp.PyArray_NBYTES(array))


cdef inline bint is_state(array, int typenum, const cnp.npy_intp *shape) noexcept:
    """A state as it is read: whole, of that type and shape?"""
    return (
        is_plain(array, 2, typenum) and has_shape(array, shape)
        and cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray> array)
    )


cdef bint touches(cnp.ndarray out, x, initial_state, tuple given, mask, lengths) noexcept:
    """May an array share memory with one that is read?"""
    cdef object state
    if overlap(out, x) or overlap(out, mask):
        return True
    if cnp.PyArray_CheckExact(lengths) and overlap(out, lengths):
        return True
    if given is not None:
        for state in given:
            if overlap(out, state):
                return True
        return False
    return initial_state is not None and overlap(out, initial_state)


cdef object rest_of(list inputs):
    """The states in a list that the input comes first in."""
    cdef object state
    if len(inputs) == 2:
        state = inputs[1]
        if cnp.PyArray_CheckExact(state):
            return (state,)
    return inputs[1:]


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
    """What a layer is called through: the short way of every call that needs no conversion in Python.

    It runs the layer's network, which `_long_call` makes, as long as nothing that went into it has been set anew.
    """

    cdef Network network
    cdef long long version
    cdef long long own                                  # the version that the network was made of, and
    cdef tuple others                                   # other layers that are in it, with theirs
    cdef long long *versions
    cdef int way                                        # what kind of call is short
    cdef public Lock _lock
    cdef public object _state                           # a recorded one, or None
    cdef list other_state                               # memory for the next one, which nobody else has
    cdef vectorcallfunc vectorcall

    def __cinit__(self):
        self.vectorcall = call_layer
        if PY_VERSION_HEX < 0x030C0000 and Py_TYPE(self).tp_call == CALL:  # later versions inherit the flag
            Py_TYPE(self).tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL
        self.other_state = [None]

    def __dealloc__(self):
        PyMem_RawFree(self.versions)

    @cython.critical_section
    cdef Network current(self):
        """The network, unless it is none any more."""
        cdef Py_ssize_t i
        if self.network is None or self.version != self.own:
            return None
        for i in range(len(self.others)):
            if (<Caller> self.others[i]).version != self.versions[i]:
                return None
        return self.network

    def _current_network(self):
        """The network that calls run, or None: it is to be made anew."""
        return self.current()

    def _changed(self):
        """Have networks made anew that have weights or flags of this layer in them."""
        self.version += 1

    def _versions(self, tuple others):
        """What `_keep_network` wants, taken before weights and flags are read."""
        cdef Caller each
        found = [self.version]
        for each in others:
            found.append(each.version)
        return found

    @cython.critical_section
    def _keep_network(self, Network network, tuple others, list versions, str way):
        """Have calls run this network until this layer, or one of those in it, changes.

        Short are calls 'plain', or of a layer that 'records' its state; None: none is.
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
        cdef Network network = self.current()
        cdef object x, state, results
        if network is not None and self.way != LONG and (training is None or training is False):
            x, state = inputs, initial_state
            if type(inputs) is list and len(<list> inputs) > 0:
                x = (<list> inputs)[0]
                if len(<list> inputs) > 1:
                    state = NotImplemented if initial_state is not None else rest_of(inputs)
            if self.way == PLAIN:
                results = network.call(x, state, mask, lengths, out)
                if results is not NotImplemented:
                    return results
            elif state is None:
                results = self.recorded(network, x, mask, lengths, out)
                if results is not NotImplemented:
                    return results
        return self._long_call(inputs, initial_state, mask, training, lengths, out)

    cdef object recorded(self, Network network, x, mask, lengths, out):
        """What a call returns that starts from the recorded state, and leaves its last one there."""
        cdef object old, results = NotImplemented
        cdef Lock lock = self._lock
        lock.acquire()
        try:
            if self._state is not None:
                results = network.call(x, self._state, mask, lengths, out, self.other_state)
                if results is not NotImplemented:
                    old, self._state = self._state, self.other_state[0]
                    self.other_state[0] = old if Py_REFCNT(old) == 1 else None
        finally:
            lock.release()
        return results


def compiled(method):
    """A method `call` with that one's signature and docstring: `Caller.__call__`, with its second to fourth
    arguments in the order of a GRU's or of the other layers' `call`."""
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
    """Caller.__call__ without a tuple and a dict of its arguments, if they are as usual."""
    cdef PyObject *given[6]
    cdef Py_ssize_t i, k, count = PyVectorcall_NARGS(flags)
    cdef Py_ssize_t named = 0 if names == NULL else PyTuple_GET_SIZE(names)
    cdef bint usual = count <= 4 and Py_TYPE(layer).tp_call == CALL  # it is not where a class was given a __call__
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
    return Py_TYPE(layer).tp_call(
        layer, tuple([<object> values[i] for i in range(count)]),
        {<object> PyTuple_GET_ITEM(names, i): <object> values[count + i] for i in range(named)})


cdef ternaryfunc CALL = (<PyTypeObject *> Caller).tp_call
cdef Caller _caller = Caller.__new__(Caller)
(<PyTypeObject *> Caller).tp_vectorcall_offset = <char *> &_caller.vectorcall - <char *> <PyObject *> _caller
(<PyTypeObject *> Caller).tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL


@cython.final
@cython.auto_pickle(False)
cdef class Holding:
    """Holds locks, taken in their order, while a block runs; leaving it takes no memory.

    No interrupt comes between a class of this module, which Python's own could not promise, and the block.
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
    """Set attributes, (object, name, value), that objects have already; then have networks of layers made anew.

    Takes no memory: either all is done, or nothing.
    """
    cdef tuple change
    cdef Caller layer
    for change in changes:
        setattr(change[0], change[1], change[2])
    for layer in changed:
        layer.version += 1


# ---- one timestep at a time ----------------------------------------------------------------


cdef inline bint are_rows(array, int typenum, const cnp.npy_intp *shape) noexcept:
    """Are they rows of that type and number, each with its elements side by side?"""
    return is_plain(array, 2, typenum) and has_shape(array, shape) and rows_are_whole(array)


cdef cnp.ndarray numbers_of(slots):
    """Numbers of slots as an array of int64, (n,); None if they are to be converted or complained of."""
    cdef cnp.ndarray numbers
    cdef cnp.npy_intp n
    cdef Py_ssize_t i
    if type(slots) is list or type(slots) is tuple:
        n = len(slots)
        numbers = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT64, 0)
        for i in range(n):
            if i >= len(slots) or type(slots[i]) is not int or not 0 <= slots[i] < 1 << 62:
                return None
            (<cnp.int64_t *> cnp.PyArray_DATA(numbers))[i] = slots[i]
        return numbers
    if (
        (is_plain(slots, 1, cnp.NPY_LONG) or is_plain(slots, 1, cnp.NPY_LONGLONG))
        and cnp.PyArray_ITEMSIZE(<cnp.ndarray> slots) == 8 and cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray> slots)
    ):
        return <cnp.ndarray> slots
    return None


cdef Memory *prepared(
    Network network, Py_ssize_t rows, Py_ssize_t timesteps, fastgru_run_of *run, Memory **spare,
) except NULL:
    """Describe a run of rows without masks, whose states are told later, and take memory for it."""
    cdef Py_ssize_t count = network.net.state_count
    cdef size_t bytes, tables = (2 * count * sizeof(void *) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    cdef Memory *memory
    cdef char *scratch
    memset(run, 0, sizeof(run[0]))
    run.batch, run.timesteps = rows, timesteps
    bytes = fastgru_workspace(&network.net, run)
    if bytes == TOO_LARGE:
        raise MemoryError()
    memory = take(spare, tables + bytes)
    scratch = scratch_of(memory)
    run.initial_states, run.states = <const void *const *> scratch, <void *const *> scratch + count
    run.memory, run.walk = scratch + tables, memory.walk
    return memory


@cython.auto_pickle(False)
cdef class Steps:
    """The state of some rows in a network, and steps of it.

    Parameters
    ----------
    network : Network or None
        Of one output; None: every step takes `_long_step`.
    states : tuple of ndarray, each (batch, units)
        To start from; copied.
    output : ndarray, shape (batch, units), C-contiguous
        Overwritten by every step that is given nothing else to write into.
    """

    cdef Network network
    cdef tuple states                                   # of ndarrays (2, batch, units), read and written in turn
    cdef int side                                       # which of both holds the state
    cdef void *running                                  # NULL: nothing is
    cdef cnp.npy_intp input_shape[2]
    cdef cnp.npy_intp output_shape[2]
    cdef cnp.ndarray memory_of_output
    cdef readonly cnp.ndarray _output                   # a view of it: users may change its shape
    cdef Memory *memory                                 # of a step
    cdef Memory *spare                                  # of a chunk
    cdef fastgru_run_of step

    def __init__(self, Network network, tuple states, cnp.ndarray output):
        if self.memory_of_output is not None:
            raise RuntimeError("__init__ must be called once")
        pairs = []
        for state in states:  # no comprehension: when it fails, its arrays are given up twice
            pairs.append(np.stack([state, state]))
        self.states = tuple(pairs)
        self.output_shape[0], self.output_shape[1] = output.shape[0], output.shape[1]
        if network is not None:
            self.input_shape[0], self.input_shape[1] = output.shape[0], network.features
            self.memory = prepared(network, output.shape[0], 1, &self.step, &self.spare)
        self._output, self.network, self.memory_of_output = output[:], network, output

    def __dealloc__(self):
        PyMem_RawFree(self.memory)
        PyMem_RawFree(self.spare)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r}: pickle its state and its layer")

    def __call__(self, x, out=None):
        cdef fastgru_run_of *step = &self.step
        cdef cnp.ndarray target = self.memory_of_output
        cdef int batch_axis
        if (
            self.network is not None and out is None and is_plain(x, 3, self.network.typenum)
            and rows_are_whole(<cnp.ndarray> x)
        ):
            batch_axis = self.network.time_major
            if (
                cnp.PyArray_DIMS(<cnp.ndarray> x)[batch_axis] == self.input_shape[0]
                and cnp.PyArray_DIMS(<cnp.ndarray> x)[2] == self.input_shape[1]
            ):
                return self._chunk(x, None, False)
        if self.network is None or not are_rows(x, self.network.typenum, self.input_shape):
            return self._long_step(x, out)
        if out is not None:
            if not (
                are_rows(out, self.network.output_types[0], self.output_shape)
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out) and not overlap(<cnp.ndarray> out, x)
            ):
                return self._long_step(x, out)
            target = <cnp.ndarray> out
        self.enter()
        step.x, step.x_batch_stride = cnp.PyArray_DATA(<cnp.ndarray> x), stride(<cnp.ndarray> x, 0)
        step.out[0], step.out_batch_stride[0] = cnp.PyArray_DATA(target), stride(target, 0)
        self.advance(step)
        self.side = 1 - self.side
        self.leave()
        return self._output if out is None else out

    def _chunk(self, cnp.ndarray x, target, bint single):
        """Run all timesteps of x, (batch, timesteps, features), time-major as the network and of its dtype.

        Returns the outputs, or those of a `single` step; `target` is overwritten with them unless it is None.
        """
        cdef Network network = self.network
        cdef fastgru_run_of run
        cdef cnp.npy_intp shape[3]
        cdef cnp.ndarray outputs
        cdef int batch_axis = network.time_major, time_axis = not network.time_major
        cdef Memory *memory
        shape[0], shape[1], shape[2] = x.shape[0], x.shape[1], self.output_shape[1]
        outputs = cnp.PyArray_EMPTY(3, shape, network.output_types[0], 0)
        if not rows_are_whole(x):
            x = np.array(x, order="C")
        memory = prepared(network, shape[batch_axis], shape[time_axis], &run, &self.spare)
        try:
            run.x = cnp.PyArray_DATA(x)
            run.x_batch_stride, run.x_time_stride = stride(x, batch_axis), stride(x, time_axis)
            run.out[0], run.out_batch_stride[0] = cnp.PyArray_DATA(outputs), stride(outputs, batch_axis)
            run.out_time_stride[0] = stride(outputs, time_axis)
            result = outputs.reshape(self.output_shape[0], self.output_shape[1]) if single else outputs
            self.enter()
            try:
                if shape[time_axis]:
                    self.advance(&run)
                if target is not None:  # while the state is what it was: a user may have changed its shape
                    target[...] = result
                if shape[time_axis]:
                    self.side = 1 - self.side
            finally:
                self.leave()
        finally:
            give_back(&self.spare, memory)
        return result

    cdef inline void advance(self, fastgru_run_of *run) noexcept:
        """Run from the state on one side to the other one, which is not the state yet."""
        cdef Py_ssize_t k, bytes_of_state
        cdef cnp.ndarray memory
        for k in range(self.network.net.state_count):
            memory = <cnp.ndarray> self.states[k]
            bytes_of_state = cnp.PyArray_NBYTES(memory) // 2
            (<char **> run.initial_states)[k] = <char *> cnp.PyArray_DATA(memory) + self.side * bytes_of_state
            (<char **> run.states)[k] = <char *> cnp.PyArray_DATA(memory) + (1 - self.side) * bytes_of_state
        with nogil:
            fastgru_run_network(&self.network.net, run)

    cdef inline int enter(self) except -1:
        if exchange(&self.running, <void *> self) != NULL:
            raise RuntimeError("a stream does one thing at a time, got a call while another one is running")
        return 0

    cdef inline void leave(self) noexcept:
        exchange(&self.running, NULL)

    def _states(self):
        """The states themselves, each (batch, units)."""
        states = []
        for memory in self.states:
            states.append(memory[self.side])
        return states

    def _assign(self, states):
        """Replace all states, by arrays (batch, units) of their types, C-contiguous."""
        cdef cnp.ndarray memory, state
        cdef Py_ssize_t k, n
        cdef tuple given = tuple(states)
        for k in range(len(given)):
            memory, state = self.states[k], given[k]
            n = cnp.PyArray_NBYTES(memory) // 2
            memcpy(<char *> cnp.PyArray_DATA(memory) + self.side * n, cnp.PyArray_DATA(state), n)


@cython.final
@cython.auto_pickle(False)
cdef class Alone:
    """Keeps other threads out of a stream while a block runs: they would read a state that is being written.

    No interrupt comes between a class of this module, which Python's own could not promise, and the block.
    """

    cdef Steps stream

    def __init__(self, Steps stream):
        self.stream = stream

    def __enter__(self):
        self.stream.enter()

    def __exit__(self, *_):
        self.stream.leave()


@cython.auto_pickle(False)
cdef class Slots:
    """The states of many rows, slots, in a network, and a step of some of them.

    A slot has a number that no other has before or after it: its place plus a multiple of the capacity.
    `cdef` methods want the GIL, or a critical section of the pool.

    Parameters
    ----------
    network : Network or None
        Of one output; None: every step takes `_long_step`.
    states : tuple of ndarray, each (capacity, units), C-contiguous
        Taken over, not copied.
    """

    cdef Network network
    cdef tuple states
    cdef readonly Py_ssize_t capacity
    cdef Py_ssize_t count                               # of open slots
    cdef Py_ssize_t free_count
    cdef cnp.ndarray free                               # places, the next to be given last
    cdef cnp.ndarray numbers                            # of the slot at a place; closed: -1 - the next one's
    cdef cnp.ndarray busy                               # is a step running?
    cdef Memory *spare                                  # of a step before, for the next one

    def __init__(self, Network network, tuple states):
        cdef Py_ssize_t capacity = states[0].shape[0]
        if self.states is not None:
            raise RuntimeError("__init__ must be called once")
        self.free = np.arange(capacity - 1, -1, -1)
        self.numbers = -1 - np.arange(capacity, dtype=np.int64)
        self.busy = np.zeros(capacity, np.uint8)
        self.network, self.free_count, self.capacity, self.states = network, capacity, capacity, states

    def __dealloc__(self):
        PyMem_RawFree(self.spare)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r}: pickle the state of each slot, and the layer")

    def __len__(self):
        return self.count

    cdef inline Py_ssize_t place(self, long long slot) noexcept:
        """Where the state of an open slot lies, or -1."""
        cdef Py_ssize_t place = slot % self.capacity if slot >= 0 and self.capacity else -1
        if place >= 0 and (<cnp.int64_t *> cnp.PyArray_DATA(self.numbers))[place] != slot:
            return -1
        return place

    cdef Py_ssize_t claim(self, const cnp.int64_t *slots, Py_ssize_t count, Py_ssize_t *places) noexcept:
        """Keep others away from the slots, unless one of them is not open or busy: its index, or -1."""
        cdef Py_ssize_t i
        for i in range(count):
            places[i] = self.place(slots[i])
            if places[i] < 0 or (<unsigned char *> cnp.PyArray_DATA(self.busy))[places[i]]:
                self.release(places, i)
                return i
            (<unsigned char *> cnp.PyArray_DATA(self.busy))[places[i]] = True
        return -1

    cdef void release(self, const Py_ssize_t *places, Py_ssize_t count) noexcept:
        """After `claim`: a place whose slot has been closed meanwhile is free now."""
        cdef Py_ssize_t i
        for i in range(count):
            (<unsigned char *> cnp.PyArray_DATA(self.busy))[places[i]] = False
            if (<cnp.int64_t *> cnp.PyArray_DATA(self.numbers))[places[i]] < 0:
                self.set_free(places[i])

    cdef void set_free(self, Py_ssize_t place) noexcept:
        (<Py_ssize_t *> cnp.PyArray_DATA(self.free))[self.free_count] = place
        self.free_count += 1

    def step(self, slots, x, out=None):
        """Advance some slots by one step, as one batch.

        Parameters
        ----------
        slots : array_like of int, shape (n,)
            Their numbers, each once, in any order; none is allowed. An array of int64 is read in place.
        x : ndarray, shape (n, features)
            The input of each. Of the layer's dtype it is read in place; other float types are cast.
        out : ndarray, shape (n, units), optional
            Where to write the outputs: of the layer's dtype.

        Returns
        -------
        ndarray, shape (n, units)
            The output of each: `out`, or a new array.

        Raises
        ------
        ValueError
            If a slot is not open, there twice, or in another thread's step; a shape does not fit; or `out`
            has another dtype or is read-only.
        TypeError
            If slots are no integers, or an array is none, or not of floats.
        """
        cdef Network network = self.network
        cdef fastgru_run_of run
        cdef cnp.npy_intp shape[2]
        cdef Py_ssize_t n, k, bad
        cdef size_t states_size = 0, places_size, run_size
        cdef cnp.ndarray output, numbers
        cdef Memory *memory
        cdef Py_ssize_t *places
        cdef char *rows
        if network is None:
            return self._long_step(slots, x, out)
        numbers = numbers_of(slots)
        if numbers is None:
            return self._long_step(slots, x, out)
        n = cnp.PyArray_DIMS(numbers)[0]
        shape[0], shape[1] = n, network.features
        if n == 0 or not are_rows(x, network.typenum, shape):
            return self._long_step(slots, x, out)
        shape[1] = network.net.values[network.net.outputs[0]].width
        if out is None:
            output = cnp.PyArray_EMPTY(2, shape, network.output_types[0], 0)
        elif (
            are_rows(out, network.output_types[0], shape) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out)
            and not overlap(<cnp.ndarray> out, x)
        ):
            output = <cnp.ndarray> out
        else:
            return self._long_step(slots, x, out)

        # all that may fail, or run Python code, comes before `claim`
        for k in range(network.net.state_count):
            states_size += 2 * n * cnp.PyArray_STRIDES(<cnp.ndarray> self.states[k])[0]
        memset(&run, 0, sizeof(run))
        run.batch, run.timesteps = n, 1
        places_size = (n + 2 * network.net.state_count) * sizeof(void *)
        places_size = (places_size + states_size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        memory = <Memory *> exchange(<void **> &self.spare, NULL)
        if memory == NULL or memory.batch != n:
            run_size = fastgru_workspace(&network.net, &run)
            if memory == NULL or memory.size < places_size + run_size:
                PyMem_RawFree(memory)
                memory = allocate(places_size + run_size)
            memory.batch = n
        rows = scratch_of(memory)
        places = <Py_ssize_t *> (rows + states_size)
        run.memory, run.walk = rows + places_size, memory.walk
        run.initial_states = <const void *const *> (places + n)
        run.states = <void *const *> (places + n) + network.net.state_count
        for k in range(network.net.state_count):
            states_size = n * cnp.PyArray_STRIDES(<cnp.ndarray> self.states[k])[0]
            (<char **> run.initial_states)[k], (<char **> run.states)[k] = rows, rows + states_size
            rows += 2 * states_size
        run.x, run.x_batch_stride = cnp.PyArray_DATA(<cnp.ndarray> x), stride(<cnp.ndarray> x, 0)
        run.out[0], run.out_batch_stride[0] = cnp.PyArray_DATA(output), stride(output, 0)
        with cython.critical_section(self):
            bad = self.claim(<const cnp.int64_t *> cnp.PyArray_DATA(numbers), n, places)
            if bad < 0:
                for k in range(network.net.state_count):
                    gather((<char **> run.initial_states)[k], self.states[k], places, n)
        if bad < 0:
            with nogil:
                fastgru_run_network(&network.net, &run)
            with cython.critical_section(self):
                for k in range(network.net.state_count):
                    scatter(self.states[k], (<char **> run.states)[k], True, places, n)
                self.release(places, n)
        memory.walk = run.walk
        give_back(&self.spare, memory)
        if bad >= 0:
            self._complain(numbers, bad)
            return NotImplemented
        return output

    # ---- the parts of a step, and what else becomes of slots; by number, states are (n, units) ---

    @cython.critical_section
    def _open(self, tuple states):
        """The number of a new slot whose states, each (units,), are these; -1: none is free."""
        cdef cnp.int64_t *numbers = <cnp.int64_t *> cnp.PyArray_DATA(self.numbers)
        cdef Py_ssize_t k, place
        if self.free_count == 0:
            return -1
        self.free_count -= 1
        place = (<Py_ssize_t *> cnp.PyArray_DATA(self.free))[self.free_count]
        numbers[place] = -1 - numbers[place]
        self.count += 1
        for k in range(len(states)):
            scatter(self.states[k], <const char *> cnp.PyArray_DATA(<cnp.ndarray> states[k]), False, &place, 1)
        return numbers[place]

    @cython.critical_section
    def _close(self, long long slot):
        """Was the slot open? Its place is free at once, or when its step ends."""
        cdef Py_ssize_t place = self.place(slot)
        if place < 0:
            return False
        (<cnp.int64_t *> cnp.PyArray_DATA(self.numbers))[place] = -1 - (slot + self.capacity)
        self.count -= 1
        if not (<unsigned char *> cnp.PyArray_DATA(self.busy))[place]:
            self.set_free(place)
        return True

    @cython.critical_section
    def _was_open(self, long long slot):
        """Has there been a slot of that number?"""
        cdef cnp.int64_t number
        if slot < 0 or self.capacity == 0:
            return False
        number = (<cnp.int64_t *> cnp.PyArray_DATA(self.numbers))[slot % self.capacity]
        return slot < (number if number >= 0 else -1 - number)

    def _state(self, long long slot):
        """Copies of the states of a slot, each (units,), as its last step left them; None if it is not open."""
        cdef Py_ssize_t k, place
        rows = []
        for state in self.states:
            rows.append(np.empty(state.shape[1], state.dtype))
        with cython.critical_section(self):
            place = self.place(slot)
            if place >= 0:
                for k in range(len(rows)):
                    gather(<char *> cnp.PyArray_DATA(<cnp.ndarray> rows[k]), self.states[k], &place, 1)
        return rows if place >= 0 else None

    def _rows(self, places):
        """Copies of the states at these places."""
        rows = []
        for state in self.states:
            rows.append(state[places])
        return rows

    @cython.critical_section
    def _set_rows(self, cnp.ndarray places, tuple states):
        """What the states at these places become: each (n, units), or (units,) for all, C-contiguous."""
        cdef cnp.ndarray rows
        cdef Py_ssize_t k
        for k in range(len(states)):  # not by NumPy: it may drop the GIL, and others see half of a state
            rows = states[k]
            scatter(
                self.states[k], <const char *> cnp.PyArray_DATA(rows), cnp.PyArray_NDIM(rows) == 2,
                <const Py_ssize_t *> cnp.PyArray_DATA(places), cnp.PyArray_DIMS(places)[0])


@cython.final
@cython.auto_pickle(False)
cdef class Claim:
    """Keeps others away from slots, (n,) of int64, while a block runs, which gets their places. None: all open.

    No interrupt comes between it and the block, as for `Alone`.
    """

    cdef Slots pool
    cdef cnp.ndarray slots
    cdef cnp.ndarray places

    def __init__(self, Slots pool, cnp.ndarray slots):
        self.pool, self.slots = pool, slots

    def __enter__(self):
        cdef Slots pool = self.pool
        cdef cnp.ndarray chosen = np.empty(pool.capacity, np.int64) if self.slots is None else self.slots
        cdef cnp.ndarray places = np.empty(chosen.shape[0], np.intp)
        cdef const cnp.int64_t *numbers = <const cnp.int64_t *> cnp.PyArray_DATA(pool.numbers)
        cdef cnp.int64_t *wanted = <cnp.int64_t *> cnp.PyArray_DATA(chosen)
        cdef Py_ssize_t bad, place, n = chosen.shape[0]
        with cython.critical_section(pool):
            if self.slots is None:  # here, where no one opens or closes slots before they are claimed
                n = 0
                for place in range(pool.capacity):
                    if numbers[place] >= 0:
                        wanted[n] = numbers[place]
                        n += 1
            bad = pool.claim(wanted, n, <Py_ssize_t *> cnp.PyArray_DATA(places))
        if bad >= 0:
            pool._complain(chosen, bad)
        try:
            self.places = places[:n]
        except BaseException:
            with cython.critical_section(pool):
                pool.release(<const Py_ssize_t *> cnp.PyArray_DATA(places), n)
            raise
        return self.places

    def __exit__(self, *_):
        with cython.critical_section(self.pool):
            self.pool.release(
                <const Py_ssize_t *> cnp.PyArray_DATA(self.places), cnp.PyArray_DIMS(self.places)[0])


cdef inline void gather(
    char *rows, cnp.ndarray states, const Py_ssize_t *places, Py_ssize_t count,
) noexcept:
    """rows, (count, units), := the states at these places."""
    cdef size_t width = cnp.PyArray_STRIDES(states)[0]
    cdef Py_ssize_t i
    for i in range(count):
        memcpy(rows + i * width, <char *> cnp.PyArray_DATA(states) + places[i] * width, width)


cdef inline void scatter(
    cnp.ndarray states, const char *rows, bint each, const Py_ssize_t *places, Py_ssize_t count,
) noexcept:
    """The states at these places := rows, (count, units), or (units,) unless there is one for each."""
    cdef size_t width = cnp.PyArray_STRIDES(states)[0], stride = width if each else 0
    cdef Py_ssize_t i
    for i in range(count):
        memcpy(<char *> cnp.PyArray_DATA(states) + places[i] * width, rows + i * stride, width)
