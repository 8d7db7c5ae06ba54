"""The C engine as Cython sees it; include/fastgru/fastgru.h says what things mean."""

cdef extern from "fastgru/fastgru.h" nogil:
    enum:
        FASTGRU_ACTIVATION_COUNT
        FASTGRU_CHAINS
    const char *const fastgru_activation_names[]

    struct fastgru_packed_kernels:
        Py_ssize_t vlen
        void *sequence  # NULL: no such kernels

    struct fastgru_layer:
        const fastgru_packed_kernels *kernels
        Py_ssize_t features
        Py_ssize_t units
        int reset_after
        int activation
        int recurrent_activation
        double alpha
        double recurrent_alpha

    struct fastgru_call:
        Py_ssize_t batch
        Py_ssize_t timesteps
        const void *x
        Py_ssize_t x_batch_stride
        Py_ssize_t x_time_stride
        const void *initial_state
        void *state
        void *out
        Py_ssize_t out_batch_stride
        Py_ssize_t out_time_stride
        const unsigned char *mask
        Py_ssize_t mask_batch_stride
        Py_ssize_t mask_time_stride
        const Py_ssize_t *lengths
        const Py_ssize_t *rows
        int go_backwards
        int zero_output_for_mask
        unsigned turn "walk"
        void *scratch

    struct fastgru_gates:
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
        void (*gates_reset_after)(const fastgru_gates *) noexcept nogil
        void (*gates_reset)(const fastgru_gates *) noexcept nogil
        void (*gates_update)(const fastgru_gates *) noexcept nogil
        void (*activate)(int, double, Py_ssize_t, const void *, void *) noexcept nogil

    struct fastgru_roofline:
        float (*multiply_adds)(Py_ssize_t) noexcept nogil
        float (*reads)(const float *, Py_ssize_t, Py_ssize_t) noexcept nogil

    struct fastgru_kernels:
        const char *isa
        int fused
        fastgru_packed_kernels f32
        fastgru_packed_kernels f64
        fastgru_packed_kernels f16
        fastgru_functions f32_functions
        fastgru_functions f64_functions
        fastgru_roofline roofline

    const fastgru_kernels *fastgru_kernels_at(int index) noexcept
    size_t fastgru_packed_size(const fastgru_layer *) noexcept
    void fastgru_pack(fastgru_layer *, const void *kernel, const void *recurrent_kernel, const void *bias,
                      void *memory) noexcept
    size_t fastgru_scratch_size(const fastgru_layer *, Py_ssize_t batch, Py_ssize_t timesteps) noexcept
    size_t fastgru_ragged_scratch_size(const fastgru_layer *, Py_ssize_t batch, Py_ssize_t timesteps) noexcept
    bint fastgru_set_lengths(fastgru_call *, const Py_ssize_t *steps, Py_ssize_t *memory) noexcept
    void fastgru_sequence(const fastgru_layer *, fastgru_call *) noexcept
