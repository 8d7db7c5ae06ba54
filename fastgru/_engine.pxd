"""The C engine as Cython sees it; include/fastgru/engine.h says what things mean."""

cdef extern from "fastgru/engine.h" nogil:
    enum:
        FASTGRU_ACTIVATION_COUNT
    const char *const fastgru_activation_names[]

    struct fastgru_step:
        Py_ssize_t rows
        Py_ssize_t units
        int activation
        int recurrent_activation
        double alpha
        double recurrent_alpha
        const void *bias
        const void *recurrent_bias
        void *xw
        Py_ssize_t xw_stride
        void *hu
        void *h
        void *out
        Py_ssize_t out_stride
        const unsigned char *mask
        Py_ssize_t mask_stride
        unsigned char *seen
        int zero_output_for_mask

    struct fastgru_functions:
        void (*gates_reset_after)(const fastgru_step *) noexcept nogil
        void (*gates_reset)(const fastgru_step *) noexcept nogil
        void (*gates_update)(const fastgru_step *) noexcept nogil
        void (*activate)(int, double, Py_ssize_t, const void *, void *) noexcept nogil

    struct fastgru_kernels:
        const char *isa
        fastgru_functions f32
        fastgru_functions f64

    const fastgru_kernels *fastgru_kernels_at(int index) noexcept
