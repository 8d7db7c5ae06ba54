# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""Weights ready to run, and the instruction sets that run them; linked with the C engine.

Trusts its callers: the Python half has checked all user input.
"""

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._blas_engine cimport refer_to
from fastgru._engine cimport (
    FASTGRU_ACTIVATION_COUNT, fastgru_activation_names, fastgru_cast, fastgru_choice, fastgru_choice_at,
    fastgru_connect, fastgru_count_threads, fastgru_format, fastgru_get_threads, fastgru_has_dot,
    fastgru_kernels, fastgru_kernels_at, fastgru_layer, fastgru_limit_threads, fastgru_network,
    fastgru_pack, fastgru_packed_size, fastgru_run_network, fastgru_run_of, fastgru_set_threads,
    fastgru_settle, fastgru_stall_threads, fastgru_thread_counts, fastgru_threads_limit, fastgru_workspace,
)
from fastgru._memory cimport ALIGNMENT, aligned

cnp.import_array()

cdef dict ACTIVATION_IDS = {
    fastgru_activation_names[i].decode(): i for i in range(FASTGRU_ACTIVATION_COUNT)
}


cdef const fastgru_kernels *kernels_at(int index) noexcept:
    """Kernels of the instruction sets that this machine can run, the fastest first; NULL after the last."""
    return fastgru_kernels_at(index)


cdef bint has_dot(const fastgru_kernels *kernels) noexcept:
    """True if this machine multiplies bytes with these."""
    return fastgru_has_dot(kernels)


cdef const fastgru_kernels *kernels_of(isa) except NULL:
    """Those of the named instruction set, or the fastest for None."""
    cdef int index = 0
    cdef const fastgru_kernels *row = fastgru_kernels_at(0)
    cdef list names = []
    if isa is None:
        return row
    while row != NULL:
        names.append(row.isa.decode())
        if names[index] == isa:
            return row
        index += 1
        row = fastgru_kernels_at(index)
    raise ValueError(f"isa must be one of {tuple(names)}, got {isa!r}")


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
    weights : {None, 'float16', 'int8'}
        Keep packed weights in that. They must be float32, with values that float16 can hold, or finite.
    scales : ndarray, shape (2, 3 * units), optional
        float32, of int8 weights: the step of each column of both kernels; by default the largest weight of the
        column divided by 127.
    dot : bool
        Multiply int8 weights as bytes if the machine can.
    """

    def __init__(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias, bint reset_after,
        tuple activation, tuple recurrent_activation, str engine, isa=None, str weights=None,
        cnp.ndarray scales=None, bint dot=True,
    ):
        cdef const fastgru_kernels *kernels = kernels_of(isa)
        self.isa, self.engine, self.typenum = kernels.isa.decode(), engine, cnp.PyArray_TYPE(kernel)
        self.features, self.units, self.reset_after = kernel.shape[0], recurrent_kernel.shape[0], reset_after
        self.ready.layer.features, self.ready.layer.units = self.features, self.units
        self.ready.layer.reset_after = reset_after
        self.ready.layer.activation, self.ready.layer.alpha = ACTIVATION_IDS[activation[0]], activation[1]
        self.ready.layer.recurrent_activation = ACTIVATION_IDS[recurrent_activation[0]]
        self.ready.layer.recurrent_alpha = recurrent_activation[1]
        if engine == "packed":
            self.ready.layer.kernels = format_of(kernels, kernel, weights, dot)
            self.ready.layer.scales = NULL if scales is None else <float *> cnp.PyArray_DATA(scales)
            self.arrays = pack(&self.ready.layer, kernel, recurrent_kernel, bias)
            self.ready.layer.scales = NULL
        else:
            self.ready.functions = &kernels.f32_functions if kernel.itemsize == 4 else &kernels.f64_functions
            self.arrays = refer_to(&self.ready, kernel, recurrent_kernel, bias)

    def __dealloc__(self):
        fastgru_settle()  # a helper may still read the weights

    @property
    def dtype(self):
        """Of all arrays."""
        return np.dtype(np.float32 if self.typenum == cnp.NPY_FLOAT32 else np.float64)

    @property
    def nbytes(self):
        """Bytes of the weights as they are read."""
        if self.engine == "packed":
            return fastgru_packed_size(&self.ready.layer)
        return sum(array.nbytes for array in self.arrays)


@cython.final
@cython.auto_pickle(False)
cdef class DensePlan:
    """Weights of a dense layer, packed; immutable, shared by any number of threads.

    Parameters
    ----------
    kernel : ndarray, shape (features, units)
        float32 or float64, C-contiguous, like the rest.
    bias : ndarray, shape (units,), or None
    isa, weights, dot
        As of `Plan`.
    scales : ndarray, shape (units,), optional
        As of `Plan`.
    """

    def __init__(
        self, cnp.ndarray kernel, cnp.ndarray bias, isa=None, str weights=None, cnp.ndarray scales=None,
        bint dot=True,
    ):
        cdef const fastgru_kernels *kernels = kernels_of(isa)
        self.layer.dense, self.layer.features, self.layer.units = 1, kernel.shape[0], kernel.shape[1]
        self.layer.kernels = format_of(kernels, kernel, weights, dot)
        self.layer.scales = NULL if scales is None else <float *> cnp.PyArray_DATA(scales)
        self.arrays = pack(&self.layer, kernel, None, bias)
        self.layer.scales = NULL

    @property
    def nbytes(self):
        """Bytes of the weights as they are read."""
        return fastgru_packed_size(&self.layer)


cdef const fastgru_format *format_of(
    const fastgru_kernels *kernels, cnp.ndarray kernel, str weights, bint dot,
) except NULL:
    """The format that these weights are packed in."""
    if weights == "int8":
        return &kernels.i8_dot if dot and fastgru_has_dot(kernels) else &kernels.i8
    if weights == "float16":
        return &kernels.f16
    return &kernels.f32 if kernel.itemsize == 4 else &kernels.f64


cdef tuple pack(fastgru_layer *layer, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias):
    """Pack these weights for a layer whose settings are set; returns the arrays to keep alive."""
    cdef cnp.ndarray packed = np.empty(fastgru_packed_size(layer) + ALIGNMENT, np.uint8)
    fastgru_pack(
        layer, cnp.PyArray_DATA(kernel), NULL if recurrent_kernel is None else cnp.PyArray_DATA(recurrent_kernel),
        NULL if bias is None else cnp.PyArray_DATA(bias), aligned(cnp.PyArray_DATA(packed)))
    return (packed,)


# ---- threads ------------------------------------------------------------------------------------------


def set_threads(int threads):
    """Threads of calls that do not say how many they may have."""
    fastgru_set_threads(threads)


def get_threads():
    """The same, as far as the process may have them."""
    return fastgru_get_threads()


def limit_threads(int threads):
    """The most threads of any call."""
    fastgru_limit_threads(threads)


def threads_limit():
    """The most threads of any call."""
    return fastgru_threads_limit()


def stall_threads(unsigned microseconds, unsigned every):
    """For tests: threads sleep before one of this many pieces of work, and help in all calls; 0: as usual."""
    fastgru_stall_threads(microseconds, every)


def choices():
    """What 'auto' found: features, units, least rows and steps, nanoseconds alone and helped, whether it pays."""
    cdef fastgru_choice each
    cdef list found = []
    cdef int i = 0
    while fastgru_choice_at(i, &each):
        found.append((
            each.features, each.units, each.batch, each.timesteps, each.alone, each.helped, bool(each.pays)))
        i += 1
    return found


def count_threads():
    """Calls with helpers, and without any, units that helpers did, and helpers that were not waited for."""
    cdef fastgru_thread_counts counts = fastgru_count_threads()
    return counts.calls, counts.alone, counts.helped, counts.lost


# ---- the engine, for modules that are not linked with it ---------------------------------------------


cdef int connect(fastgru_network *network) noexcept:
    return fastgru_connect(network)


cdef size_t workspace_of(const fastgru_network *network, const fastgru_run_of *run) noexcept:
    return fastgru_workspace(network, run)


cdef void run_nodes(const fastgru_network *network, fastgru_run_of *run) noexcept nogil:
    fastgru_run_network(network, run)


cdef void cast_numbers(
    Py_ssize_t n, const void *x, size_t x_size, Py_ssize_t x_stride, void *y, size_t y_size,
) noexcept:
    fastgru_cast(n, x, x_size, x_stride, y, y_size)
