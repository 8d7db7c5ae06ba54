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
        unsigned char *seen
        int go_backwards
        int zero_output_for_mask
        unsigned walk
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
    void fastgru_sequence(const fastgru_layer *, fastgru_call *) noexcept


cdef extern from "fastgru/network.h" nogil:
    struct fastgru_engine:
        size_t (*scratch)(const void *weights, const fastgru_call *) noexcept nogil
        void (*run)(const void *weights, fastgru_call *) noexcept nogil

    enum:
        FASTGRU_GRU
        FASTGRU_CAST
        FASTGRU_SUM
        FASTGRU_MUL
        FASTGRU_AVE
        FASTGRU_OUTPUTS

    struct fastgru_value:
        Py_ssize_t width
        size_t itemsize
        int last

    struct fastgru_node:
        int kind
        int input
        int other
        int output
        Py_ssize_t column
        Py_ssize_t units
        const fastgru_engine *engine
        const void *weights
        int go_backwards
        int turned
        int zero_output_for_mask
        int state

    struct fastgru_network:
        fastgru_node *nodes
        fastgru_value *values
        int node_count
        int value_count
        int state_count
        int output_count
        int outputs[2]
        size_t chunk_bytes
        Py_ssize_t chunk_steps

    struct fastgru_run_of "fastgru_network_call":
        Py_ssize_t batch
        Py_ssize_t timesteps
        const void *x
        Py_ssize_t x_batch_stride
        Py_ssize_t x_time_stride
        const void *const *initial_states
        void *const *states
        void *out[2]
        Py_ssize_t out_batch_stride[2]
        Py_ssize_t out_time_stride[2]
        const unsigned char *mask
        Py_ssize_t mask_batch_stride
        Py_ssize_t mask_time_stride
        const Py_ssize_t *lengths
        unsigned walk
        void *memory

    int fastgru_connect(fastgru_network *) noexcept
    size_t fastgru_workspace(const fastgru_network *, const fastgru_run_of *) noexcept
    void fastgru_run_network "fastgru_run"(const fastgru_network *, fastgru_run_of *) noexcept
    void fastgru_cast(Py_ssize_t n, const void *x, size_t x_size, Py_ssize_t x_stride, void *y,
                      size_t y_size) noexcept
