"""The C engine as Cython sees it; fastgru.h, network.h and threads.h in include/fastgru document it."""

cdef extern from "fastgru/fastgru.h" nogil:
    enum:
        FASTGRU_ACTIVATION_COUNT
        FASTGRU_CHAINS
    const char *const fastgru_activation_names[]

    struct fastgru_format:
        size_t itemsize
        size_t weight_size
        int quantized
        Py_ssize_t vlen
        int full_tile
        Py_ssize_t step_units[2]
        void (*pack)(const fastgru_layer *, const void *, const void *, const void *) noexcept nogil
        void (*project)(const fastgru_layer *, fastgru_projection *) noexcept nogil
        void (*step)(const fastgru_layer *, const fastgru_pass *) noexcept nogil  # NULL: no such kernels

    struct fastgru_layer:
        const fastgru_format *kernels
        Py_ssize_t features
        Py_ssize_t units
        int dense
        int reset_after
        int activation
        int recurrent_activation
        double alpha
        double recurrent_alpha
        const float *scales
        const void *biases
        size_t panel_count
        size_t panel_bytes

    struct fastgru_functions:
        void (*gates_after)(const fastgru_layer *, const fastgru_pass *) noexcept nogil
        void (*gates_reset)(const fastgru_layer *, const fastgru_pass *) noexcept nogil
        void (*gates_update)(const fastgru_layer *, const fastgru_pass *) noexcept nogil
        void (*activate)(int, double, Py_ssize_t, const void *, void *) noexcept nogil

    struct fastgru_roofline:
        float (*multiply_adds)(Py_ssize_t) noexcept nogil
        float (*i8_multiply_adds)(Py_ssize_t) noexcept nogil
        float (*i8_dot_multiply_adds)(Py_ssize_t) noexcept nogil
        float (*reads)(const float *, Py_ssize_t, Py_ssize_t) noexcept nogil

    struct fastgru_kernels:
        const char *isa
        int fused
        fastgru_format f32
        fastgru_format f64
        fastgru_format f16
        fastgru_format i8
        fastgru_format i8_dot
        fastgru_functions f32_functions
        fastgru_functions f64_functions
        fastgru_roofline roofline

    const fastgru_kernels *fastgru_kernels_at(int index) noexcept
    int fastgru_has_dot(const fastgru_kernels *) noexcept
    size_t fastgru_packed_size(const fastgru_layer *) noexcept
    void fastgru_pack(fastgru_layer *, const void *kernel, const void *recurrent_kernel, const void *bias,
                      void *memory) noexcept


cdef extern from "fastgru/network.h" nogil:
    struct fastgru_projection:
        Py_ssize_t rows
        Py_ssize_t steps
        const void *x
        Py_ssize_t x_batch_stride
        Py_ssize_t x_time_stride
        void *xw
        Py_ssize_t xw_stride
        Py_ssize_t xw_time_stride

    struct fastgru_pass:
        Py_ssize_t rows
        Py_ssize_t x_rows
        const void *x
        Py_ssize_t x_stride
        void *xw
        Py_ssize_t xw_stride
        const void *h
        void *scratch

    enum:
        FASTGRU_GRU
        FASTGRU_CALL_MASK
        FASTGRU_NO_MASK
        FASTGRU_OUTPUTS

    struct fastgru_clock:
        int input
        int from_clock "from"
        Py_ssize_t span
        Py_ssize_t stride
        Py_ssize_t steps

    struct fastgru_value:
        Py_ssize_t width
        size_t itemsize
        int last
        int clock

    struct fastgru_node:
        int kind
        int input
        int other
        int output
        Py_ssize_t column
        Py_ssize_t from_column "from"
        const fastgru_layer *layer
        int go_backwards
        int reverse_output
        int zero_output_for_mask
        int state
        int mask
        int initial
        int final_state "final"
        int activation
        double alpha
        double beta
        const void *weights
        const void *bias
        Py_ssize_t limit
        int from_end
        Py_ssize_t size
        Py_ssize_t stride
        Py_ssize_t dilation
        int padding
        const fastgru_functions *functions

    struct fastgru_network:
        fastgru_node *nodes
        fastgru_value *values
        const fastgru_clock *clocks
        int node_count
        int value_count
        int input_count
        int clock_count
        int state_count
        int output_count
        int outputs[8]
        size_t chunk_bytes
        Py_ssize_t chunk_steps

    struct fastgru_input:
        const void *data
        Py_ssize_t batch_stride
        Py_ssize_t time_stride
        Py_ssize_t timesteps

    struct fastgru_run_of "fastgru_network_call":
        Py_ssize_t batch
        Py_ssize_t timesteps
        const void *x
        Py_ssize_t x_batch_stride
        Py_ssize_t x_time_stride
        const fastgru_input *inputs
        const void *const *initial_states
        void *const *states
        void *out[8]
        Py_ssize_t out_batch_stride[8]
        Py_ssize_t out_time_stride[8]
        const unsigned char *mask
        Py_ssize_t mask_batch_stride
        Py_ssize_t mask_time_stride
        const Py_ssize_t *lengths
        Py_ssize_t first
        unsigned walk
        int threads
        void *memory

    int fastgru_connect(fastgru_network *) noexcept
    size_t fastgru_workspace(const fastgru_network *, const fastgru_run_of *) noexcept
    void fastgru_run_network "fastgru_run"(const fastgru_network *, fastgru_run_of *) noexcept
    void fastgru_cast(Py_ssize_t n, const void *x, size_t x_size, Py_ssize_t x_stride, void *y,
                      size_t y_size) noexcept


cdef extern from "fastgru/threads.h" nogil:
    struct fastgru_choice:
        Py_ssize_t features
        Py_ssize_t units
        Py_ssize_t batch
        Py_ssize_t timesteps
        double alone
        double helped
        int pays

    int fastgru_choice_at(int index, fastgru_choice *choice) noexcept
    struct fastgru_thread_counts:
        unsigned long long calls
        unsigned long long alone
        unsigned long long helped
        unsigned long long lost

    void fastgru_set_threads(int threads) noexcept
    int fastgru_get_threads() noexcept
    void fastgru_limit_threads(int threads) noexcept
    int fastgru_threads_limit() noexcept
    void fastgru_settle() noexcept
    void fastgru_stall_threads(unsigned microseconds, unsigned every) noexcept
    fastgru_thread_counts fastgru_count_threads() noexcept
