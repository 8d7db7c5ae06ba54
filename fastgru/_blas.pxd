"""Row-major products over scipy.linalg.cython_blas, bound on first use.

The functions are taken from the capsules that scipy exports for `cimport`, at run time and
not by `cimport`: that would import scipy.linalg, about 0.3 s and 30 MB, with fastgru.
"""

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.string cimport memset

ctypedef void (*sgemm_t)(
    char *, char *, int *, int *, int *, float *, float *, int *, float *, int *, float *, float *, int *
) noexcept nogil
ctypedef void (*dgemm_t)(
    char *, char *, int *, int *, int *, double *, double *, int *, double *, int *, double *, double *, int *
) noexcept nogil
ctypedef void (*sgemv_t)(
    char *, int *, int *, float *, float *, int *, float *, int *, float *, float *, int *
) noexcept nogil
ctypedef void (*dgemv_t)(
    char *, int *, int *, double *, double *, int *, double *, int *, double *, double *, int *
) noexcept nogil

cdef struct Blas:
    sgemm_t sgemm
    dgemm_t dgemm
    sgemv_t sgemv
    dgemv_t dgemv

# OpenBLAS packs the right-hand matrix anew for every product: up to this number of rows one
# gemv per row is faster. 256 units, float32: a gemv 16 us, a gemm of 2 rows 179, of 8 rows 198,
# of 16 rows 227 (AMD EPYC 7003, one thread, scipy 1.17, 2026-11-22).
cdef enum:
    GEMV_ROWS = 8


cdef inline void *_function(capsules, str name, str arguments) except NULL:
    """The pointer behind a capsule, whose name is its C signature: c char, i int, r real."""
    capsule = capsules[name]
    cdef const char *signature = PyCapsule_GetName(capsule)
    text = (<bytes> signature).decode()
    letters = ""
    for kind in text.removeprefix("void (").removesuffix(")").split(", "):
        real = kind.endswith(f"_{name[0]} *")
        letters += "c" if kind == "char *" else "i" if kind == "int *" else "r" if real else "?"
    if letters != arguments:
        raise ImportError(
            f"scipy.linalg.cython_blas.{name} must take 32-bit integers, got the signature"
            f" {text}: install a SciPy built with an LP64 BLAS"
        )
    return PyCapsule_GetPointer(capsule, signature)


cdef inline int bind(Blas *blas) except -1:
    """Fill the table unless that has been done; imports scipy.linalg.cython_blas."""
    if blas.sgemm != NULL:
        return 0
    try:
        from scipy.linalg import cython_blas
    except ModuleNotFoundError as error:
        if error.name != "scipy":
            raise
        raise ImportError(
            "the BLAS engine needs scipy, which is not installed: pip install scipy", name="scipy"
        ) from error

    capsules = cython_blas.__pyx_capi__
    blas.dgemm = <dgemm_t> _function(capsules, "dgemm", "cciiirririrri")
    blas.sgemv = <sgemv_t> _function(capsules, "sgemv", "ciirririrri")
    blas.dgemv = <dgemv_t> _function(capsules, "dgemv", "ciirririrri")
    blas.sgemm = <sgemm_t> _function(capsules, "sgemm", "cciiirririrri")  # last: it says "bound"
    return 0


cdef inline void matmul(
    const Blas *blas,
    size_t itemsize,         # 4: float32, 8: float64
    Py_ssize_t m, int n, int k,
    const char *a,           # (m, k), rows lda apart
    Py_ssize_t lda,
    const char *b,           # (k, n), rows ldb apart
    int ldb,
    char *c,                 # (m, n), rows ldc apart, overwritten
    Py_ssize_t ldc,
) noexcept nogil:
    """C := A B, row-major; m, lda, ldc up to 2**31 - 1 unless m <= GEMV_ROWS.

    BLAS is column-major and sees the transposes: C' := B' A'. It takes no const, and writes
    to C alone.
    """
    cdef char no = b"N"
    cdef int one = 1, rows = <int> m, a_stride = <int> lda, c_stride = <int> ldc
    cdef float s_one = 1, s_zero = 0
    cdef double d_one = 1, d_zero = 0
    if m <= GEMV_ROWS or k == 0:
        for _ in range(m):
            # beta = 1 onto zeros: with beta = 0 some BLAS keep a NaN that was in C
            memset(c, 0, n * itemsize)
            if k == 0:
                pass
            elif itemsize == 4:
                blas.sgemv(&no, &n, &k, &s_one, <float *> b, &ldb, <float *> a, &one, &s_one, <float *> c, &one)
            else:
                blas.dgemv(&no, &n, &k, &d_one, <double *> b, &ldb, <double *> a, &one, &d_one, <double *> c, &one)
            a += lda * <Py_ssize_t> itemsize
            c += ldc * <Py_ssize_t> itemsize
    elif itemsize == 4:
        blas.sgemm(&no, &no, &n, &rows, &k, &s_one, <float *> b, &ldb, <float *> a, &a_stride,
                   &s_zero, <float *> c, &c_stride)
    else:
        blas.dgemm(&no, &no, &n, &rows, &k, &d_one, <double *> b, &ldb, <double *> a, &a_stride,
                   &d_zero, <double *> c, &c_stride)
