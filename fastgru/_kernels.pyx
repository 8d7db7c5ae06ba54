# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The kernels themselves: instruction sets, activations, one activation of an array, limits of the machine."""

cimport numpy as cnp
import numpy as np

from fastgru._arrays cimport rows_are_whole as whole
from fastgru._plans cimport ACTIVATION_IDS, has_dot, kernels_at, kernels_of
from fastgru._engine cimport FASTGRU_CHAINS, fastgru_functions, fastgru_kernels

cnp.import_array()


def isas():
    """Names of the instruction sets that this machine can run, the fastest first."""
    cdef int index = 0
    names = []
    while kernels_at(index) != NULL:
        names.append(kernels_at(index).isa.decode())
        index += 1
    return tuple(names)


def packed_isas():
    """Those of `isas()` whose packed kernels all give the same bits."""
    return tuple(isa for isa in isas() if kernels_of(isa).fused)


def float16_isas():
    """Those of `isas()` that compute with float16 weights."""
    return tuple(isa for isa in isas() if kernels_of(isa).f16.step != NULL)


def dot_isas():
    """Those of `isas()` with which this machine multiplies the bytes of int8 weights."""
    return tuple(isa for isa in isas() if has_dot(kernels_of(isa)))


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
    """Run only fused multiply-adds on float32; returns the number of operations, two each."""
    cdef const fastgru_kernels *kernels = kernels_of(isa)
    with nogil:
        kernels.roofline.multiply_adds(turns)
    return 2 * FASTGRU_CHAINS * kernels.f32.vlen * turns


def integer_multiply_adds(Py_ssize_t turns, bint dot, isa=None):
    """Run only products of int8 weights and 16-bit factors; returns the number of operations, two each.

    `dot`: multiply bytes; `isa` must be one of `dot_isas()`. To ask the CPU takes longer than many products.
    """
    cdef const fastgru_kernels *kernels = kernels_of(isa)
    with nogil:
        if dot:
            kernels.roofline.i8_dot_multiply_adds(turns)
        else:
            kernels.roofline.i8_multiply_adds(turns)
    return 8 * FASTGRU_CHAINS * kernels.f32.vlen * turns


def reads(cnp.ndarray memory, Py_ssize_t turns, isa=None):
    """Only read a contiguous float32 array, repeatedly; returns the number of bytes read.

    Only whole blocks of FASTGRU_CHAINS vectors are read, not the rest at the end.
    """
    cdef const fastgru_kernels *kernels = kernels_of(isa)
    cdef Py_ssize_t block = FASTGRU_CHAINS * kernels.f32.vlen
    cdef Py_ssize_t blocks = cnp.PyArray_SIZE(memory) // block
    with nogil:
        kernels.roofline.reads(<const float *> cnp.PyArray_DATA(memory), blocks, turns)
    return 4 * block * blocks * turns


def rows_are_whole(cnp.ndarray array):
    """True if the last axis is contiguous and every row starts at a multiple of the item size."""
    return whole(array)
