/* fastgru.h - the GRU of Keras in C, for the best instruction set at hand.
 *
 *     z  = f(xz + hz)                                 update gate
 *     r  = f(xr + hr)                                 reset gate
 *     hh = g(xh + r * (h.Uh + bh))    reset after     candidate
 *     hh = g(xh + (r * h).Uh)         reset before
 *     h' = z * h + (1 - z) * hh
 *
 * where xz, xr, xh are the columns of x.kernel + bias and hz, hr those of h.recurrent_kernel.
 *
 * C99 and C++11. Link the library, or compile src/ of the repository with the program: all C files, with
 * -ffp-contract=off. No dependency, no state and no allocation, so that any thread may call anything.
 *
 *     struct fastgru_layer layer = {0};
 *     layer.kernels = &fastgru_kernels_at(0)->f32;            the fastest, on float32 weights
 *     layer.features = 40, layer.units = 64, layer.reset_after = 1;
 *     layer.activation = FASTGRU_tanh, layer.recurrent_activation = FASTGRU_sigmoid;
 *     void *memory = aligned_alloc(64, fastgru_packed_size(&layer));
 *     fastgru_pack(&layer, kernel, recurrent_kernel, bias, memory);
 *
 *     struct fastgru_call call = {0};                         examples/c has it all
 *     call.batch = 1, call.timesteps = 100, call.x = x, ...
 *     call.scratch = aligned_alloc(64, fastgru_scratch_size(&layer, 1, 100));
 *     fastgru_sequence(&layer, &call);
 *
 * A row's result has the same bits alone or in a batch, in one call or cut in time, whatever the masks of its
 * neighbours, and on every instruction set that has fused multiply-adds: the order of additions depends on the
 * layer's size alone.
 *
 * Arrays are void; their elements have the dtype of the layer's kernels. The last axis is contiguous; strides
 * count elements. Functions that return nothing cannot fail. */

#ifndef FASTGRU_H
#define FASTGRU_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Every activation as X(name): the name in Python, and FASTGRU_name in C. `a` is the parameter of those that have
 * one. */
#define FASTGRU_ACTIVATIONS(X)                                                    \
    X(linear)            /* x                                                  */ \
    X(tanh)              /* (e^2x - 1) / (e^2x + 1)                            */ \
    X(sigmoid)           /* 1 / (1 + e^-x)                                     */ \
    X(hard_sigmoid)      /* 0.2 x + 0.5 between 0 and 1                        */ \
    X(clipped_line)      /* a x + 0.5 between 0 and 1                          */ \
    X(relu)              /* max(0, x)                                          */ \
    X(relu6)             /* min(max(0, x), 6)                                  */ \
    X(leaky_relu)        /* x where x >= 0, else a x                           */ \
    X(thresholded_relu)  /* x where x > a, else 0                              */ \
    X(elu)               /* x where x > 0, else a (e^x - 1)                    */ \
    X(selu)              /* 1.0507 x where x > 0, else 1.7581 (e^x - 1)        */ \
    X(gelu)              /* x (1 + erf(c x)) / 2, c = 0.5^0.5 as a float32     */ \
    X(swish)             /* x / (1 + e^-x)                                     */ \
    X(mish)              /* x tanh(log(1 + e^x))                               */ \
    X(softplus)          /* log(1 + e^x)                                       */ \
    X(softsign)          /* x / (1 + |x|)                                      */ \
    X(exponential)       /* e^x                                                */

enum fastgru_activation {
#define FASTGRU_MEMBER(name) FASTGRU_##name,
    FASTGRU_ACTIVATIONS(FASTGRU_MEMBER)
#undef FASTGRU_MEMBER
    FASTGRU_ACTIVATION_COUNT
};

extern const char *const fastgru_activation_names[FASTGRU_ACTIVATION_COUNT];

/* ---- a layer -------------------------------------------------------------------------- */

/* What a layer computes and with which kernels, set by the caller; and its packed weights, set by fastgru_pack.
 * Read-only from then on: any number of threads may share it. */
struct fastgru_layer {
    const struct fastgru_format *kernels;  /* f32, f64, f16 or i8 of an instruction set    */
    ptrdiff_t features;
    ptrdiff_t units;
    int dense;                       /* 1: no GRU, but a dense layer, x.kernel + bias      */
    int reset_after;
    int activation;                  /* g and its parameter                                */
    int recurrent_activation;        /* f and its parameter                                */
    double alpha;
    double recurrent_alpha;
    const float *scales;             /* i8: (2, 3 * units)  the step of each column of both kernels;
                                        dense (units); NULL: its largest weight / 127      */

    const void *biases;              /* (panels, 4, vlen)  z, r, candidate, its recurrent; reset
                                        after, z and r with their recurrent ones; dense
                                        (panels, 3, vlen)                                  */
    const char *panels;              /* panels of (features, 3, vlen) and (units, 3, vlen), reset
                                        before (units, 2, vlen): gates side by side; dense
                                        (features, 3, vlen): three blocks of units         */
    const char *candidates;          /* reset before: panels of (units, 3, vlen), three
                                        neighbouring blocks of units side by side          */
    size_t panel_count;
    size_t panel_bytes;
    size_t candidate_bytes;
};

/* Bytes of the packed weights: about those of kernel and recurrent kernel. */
size_t fastgru_packed_size(const struct fastgru_layer *layer);

/* Pack weights as Keras keeps them, columns z | r | h, of the kernels' dtype (float32 for f16, and then within
 * +-65504 or NaN), into memory that the layer refers to from then on. */
void fastgru_pack(
    struct fastgru_layer *layer,     /* in and out                                         */
    const void *kernel,              /* (features, 3 * units); dense (features, units)     */
    const void *recurrent_kernel,    /* (units, 3 * units); dense NULL                     */
    const void *bias,                /* (3 * units), reset after (2, 3 * units), dense (units); or NULL */
    void *memory);                   /* fastgru_packed_size bytes, overwritten; aligned to 64 */

/* ---- a call ----------------------------------------------------------------------------- */

/* Some timesteps of some rows. */
struct fastgru_call {
    ptrdiff_t batch;
    ptrdiff_t timesteps;
    const void *x;                   /* (batch, timesteps, features)                       */
    ptrdiff_t x_batch_stride;
    ptrdiff_t x_time_stride;
    const void *initial_state;       /* (batch, units)     NULL: zeros; may alias `state`  */
    void *state;                     /* (batch, units)     overwritten: after the last step;
                                        or NULL                                            */
    void *out;                       /* (batch, timesteps, units)  overwritten, in the order of
                                        the run; or NULL                                   */
    ptrdiff_t out_batch_stride;
    ptrdiff_t out_time_stride;       /* 0: the last step's output overwrites the others    */
    const unsigned char *mask;       /* (batch, timesteps) 0: the row keeps its state; or NULL */
    ptrdiff_t mask_batch_stride;
    ptrdiff_t mask_time_stride;
    const ptrdiff_t *lengths;        /* (batch)  steps of each row, descending; later ones are masked.
                                        With a mask it must be NULL                        */
    const ptrdiff_t *rows;           /* (batch)  the row of each length                    */
    unsigned char *seen;             /* (batch)  in and out: 1 once a row has had a step; NULL: none had one
                                        before this call                                   */
    int go_backwards;
    int zero_output_for_mask;
    unsigned walk;                   /* in and out: give a stream's next call what this one left,
                                        and it starts where weights are still in the cache;
                                        any value gives the same bits                      */
    void *scratch;                   /* fastgru_scratch_size bytes, with lengths fastgru_ragged_scratch_size,
                                        overwritten; aligned to 64                         */
};

/* Bytes of scratch that suffice for every call of up to this size: at most 4 MiB, or one step of 8 rows. */
size_t fastgru_scratch_size(const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps);

/* The same for calls with lengths. */
size_t fastgru_ragged_scratch_size(const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps);

/* Set a call's lengths and rows: the longest first, else as they come. Returns 0, and the call is as it was, if a
 * length is not in 0 to timesteps. */
int fastgru_set_lengths(
    struct fastgru_call *call,       /* in and out                                         */
    const ptrdiff_t *steps,          /* (batch)  of each row                               */
    ptrdiff_t *memory);              /* (5, batch)  overwritten; the call refers to it     */

/* Run a call of at least one timestep. */
void fastgru_sequence(
    const struct fastgru_layer *layer,
    struct fastgru_call *call);      /* in and out: walk                                   */

/* One timestep of rows that lie side by side. */
void fastgru_step(
    const struct fastgru_layer *layer,
    ptrdiff_t batch,
    const void *x,                   /* (batch, features)                                  */
    void *state,                     /* (batch, units)     in and out                      */
    unsigned *walk,                  /* in and out: 0 before the first step of a stream    */
    void *scratch);                  /* fastgru_scratch_size(layer, batch, 1) bytes, overwritten; aligned to 64 */

/* ---- instruction sets ----------------------------------------------------------------- */

struct fastgru_projection;           /* network.h has both                                 */
struct fastgru_pass;

/* A format of weights on one instruction set, or of an engine that the caller brings. */
struct fastgru_format {
    size_t itemsize;                 /* bytes of an element of all arrays                  */
    size_t weight_size;              /* bytes of a packed weight                           */
    int quantized;                   /* 1: weights are integers, and so are what they multiply */
    ptrdiff_t vlen;                  /* units that are computed side by side               */
    int full_tile;                   /* rows that keep the arithmetic busy; 0: bits depend on the number of rows */
    ptrdiff_t step_units[2];         /* reset before, reset after: scratch of a row in a step, in units */
    void (*pack)(
        const struct fastgru_layer *layer,
        const void *kernel,          /* as fastgru_pack has them                           */
        const void *recurrent_kernel,
        const void *bias);
    void (*project)(                 /* x.kernel of some steps                             */
        const struct fastgru_layer *layer,
        struct fastgru_projection *projection);
    void (*step)(                    /* one timestep                                       */
        const struct fastgru_layer *layer,
        const struct fastgru_pass *pass);
    void (*dense)(                   /* a dense layer without its activation; NULL: none   */
        const struct fastgru_layer *layer,
        const struct fastgru_projection *projection,
        void *scratch);              /* fastgru_dense_scratch bytes, overwritten           */
};

/* The elementwise half of a step, for products that come from elsewhere; network.h has the arrays. */
struct fastgru_functions {
    void (*gates_after)(const struct fastgru_layer *layer, const struct fastgru_pass *pass);
    void (*gates_reset)(const struct fastgru_layer *layer, const struct fastgru_pass *pass);   /* r * h */
    void (*gates_update)(const struct fastgru_layer *layer, const struct fastgru_pass *pass);  /* the rest */
    void (*activate)(                /* y = f(x), elementwise                              */
        int activation, double alpha,
        ptrdiff_t n,
        const void *x,               /* (n)                                                */
        void *y);                    /* (n)  overwritten; may alias x                      */
};

enum { FASTGRU_CHAINS = 12 };        /* vectors in registers: enough to hide the latency of a multiply-add */

/* Loops that show what a core can do at best, on float32 if they do not say otherwise; the caller measures the time. */
struct fastgru_roofline {
    float (*multiply_adds)(ptrdiff_t times);  /* each 2 * FASTGRU_CHAINS * vlen operations */
    float (*reads)(
        const float *memory,         /* (blocks, FASTGRU_CHAINS, vlen)                     */
        ptrdiff_t blocks, ptrdiff_t times);
    float (*i8_multiply_adds)(ptrdiff_t times);  /* of int8 and 16-bit integers, each 8 * FASTGRU_CHAINS * vlen */
    float (*i8_dot_multiply_adds)(ptrdiff_t times);  /* the same where fastgru_has_dot; NULL: no i8_dot */
};

struct fastgru_kernels {
    const char *isa;                 /* its name                                           */
    int fused;                       /* multiply-adds round once: the same bits as on all such sets */
    struct fastgru_format f32;
    struct fastgru_format f64;
    struct fastgru_format f16;       /* float16 weights, float32 all else; step NULL: none */
    struct fastgru_format i8;        /* int8 weights, float32 all else                     */
    struct fastgru_format i8_dot;    /* the same, faster, where fastgru_has_dot            */
    struct fastgru_functions f32_functions;
    struct fastgru_functions f64_functions;
    struct fastgru_roofline roofline;
};

/* The instruction sets of this machine, best first; NULL after the last. Nothing else queries the CPU. */
const struct fastgru_kernels *fastgru_kernels_at(int index);

/* 1 if this machine multiplies bytes as i8_dot does (AVX-512 VNNI, AVX-VNNI, SDOT). */
int fastgru_has_dot(const struct fastgru_kernels *kernels);

#ifdef __cplusplus
}
#endif

#endif
