/* engine.h - the GRU of Keras in C, for the best instruction set at hand.
 *
 *     z  = f(xz + hz)                                 update gate
 *     r  = f(xr + hr)                                 reset gate
 *     hh = g(xh + r * (h.Uh + bh))    reset after     candidate
 *     hh = g(xh + (r * h).Uh)         reset before
 *     h' = z * h + (1 - z) * hh
 *
 * where xz, xr, xh are the columns of x.kernel + bias and hz, hr those of h.recurrent_kernel.
 * Header only; C99 and C++11, with GNU extensions where the compiler has them; no dependency, no
 * state and no allocation, so that any thread may call anything.
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
 * A row's result has the same bits alone or in a batch, in one call or cut in time, whatever the
 * masks of its neighbours, and on every instruction set that has fused multiply-adds: every
 * product is one chain of them per output, from the bias on, k ascending, h after x.
 *
 * Kernels are void and cannot fail. Compile with -ffp-contract=off: those bits, error bounds, and that
 * hard_sigmoid is Keras' want the FMAs that are written out and no others. With GCC and Clang every
 * instruction set that the compiler knows is compiled in, by target pragmas. */

#ifndef FASTGRU_ENGINE_H
#define FASTGRU_ENGINE_H

#ifdef __FAST_MATH__
#error "fastgru needs IEEE arithmetic: compile without -ffast-math"
#endif

#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if (defined(__GNUC__) || defined(__clang__)) && !defined(FASTGRU_SCALAR)
#define FASTGRU_SCALAR 0
#define FASTGRU_INLINE static inline __attribute__((always_inline))
#define FASTGRU_OUTLINE static __attribute__((noinline))
#ifdef __clang__
#define FASTGRU_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FASTGRU_UNROLL _Pragma("GCC unroll 8")
#endif
#else
#ifndef FASTGRU_SCALAR
#define FASTGRU_SCALAR 1
#endif
#define FASTGRU_INLINE static inline
#define FASTGRU_OUTLINE static
#define FASTGRU_UNROLL
#endif

#if !FASTGRU_SCALAR && defined(__x86_64__)
#define FASTGRU_X86 1
#include <immintrin.h>
#elif !FASTGRU_SCALAR && defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FASTGRU_PASTE(name, dtype, isa) name##_##dtype##_##isa
#define FASTGRU_NAME(name, dtype, isa) FASTGRU_PASTE(name, dtype, isa)
#define FASTGRU_QUOTE(text) #text
#define FASTGRU_STRING(text) FASTGRU_QUOTE(text)
#define KERNEL(name) FASTGRU_NAME(name, FASTGRU_DTYPE, FASTGRU_ISA)

/* name in Python, formula; `a` is the parameter of the activation where it has one */
#define FASTGRU_ACTIVATIONS(X)                                                    \
    X(linear)            /* x                                                  */ \
    X(tanh)              /* (e^2x - 1) / (e^2x + 1)                            */ \
    X(sigmoid)           /* 1 / (1 + e^-x)                                     */ \
    X(hard_sigmoid)      /* 0.2 x + 0.5 between 0 and 1                        */ \
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
#define FASTGRU_ROW(name) FASTGRU_##name,
    FASTGRU_ACTIVATIONS(FASTGRU_ROW)
#undef FASTGRU_ROW
    FASTGRU_ACTIVATION_COUNT
};

static const char *const fastgru_activation_names[FASTGRU_ACTIVATION_COUNT] = {
#define FASTGRU_ROW(name) #name,
    FASTGRU_ACTIVATIONS(FASTGRU_ROW)
#undef FASTGRU_ROW
};

/* ---- a layer, packed ---------------------------------------------------------------- */

struct fastgru_packed;

/* What a layer computes and with which kernels, set by the caller; and its packed weights, set by
 * fastgru_pack. Read-only from then on: any number of threads may share it. */
struct fastgru_layer {
    const struct fastgru_packed *kernels;  /* a row of the table: f32, f64 or f16          */
    ptrdiff_t features;
    ptrdiff_t units;
    int reset_after;
    int activation;                  /* g and its parameter                                */
    int recurrent_activation;        /* f and its parameter                                */
    double alpha;
    double recurrent_alpha;

    const void *biases;              /* (panels, 4, vlen)  z, r, candidate, its recurrent  */
    const char *panels;              /* panels of (features, 3, vlen) and (units, 3, vlen), reset
                                        before (units, 2, vlen): gates side by side        */
    const char *candidates;          /* reset before: panels of (units, 3, vlen), three
                                        neighbouring blocks of units side by side          */
    size_t panel_bytes;
    size_t candidate_bytes;
};

/* Some timesteps of some rows. Arrays hold the kernels' dtype; strides count elements, and
 * the last axis lies side by side. */
struct fastgru_call {
    ptrdiff_t batch;
    ptrdiff_t timesteps;
    const void *x;                   /* (batch, timesteps, features)                       */
    ptrdiff_t x_batch_stride;
    ptrdiff_t x_time_stride;
    const void *initial_state;       /* (batch, units)     NULL: zeros; may be `state`     */
    void *state;                     /* (batch, units)     overwritten: after the last step*/
    void *out;                       /* (batch, timesteps, units)  overwritten, in the order of
                                        the run; or NULL                                   */
    ptrdiff_t out_batch_stride;
    ptrdiff_t out_time_stride;       /* 0: of all steps the last one's output stays        */
    const unsigned char *mask;       /* (batch, timesteps) 0: the row keeps its state; or NULL */
    ptrdiff_t mask_batch_stride;
    ptrdiff_t mask_time_stride;
    int go_backwards;
    int zero_output_for_mask;
    unsigned turn;                   /* in and out: hand a stream's next call what this one left,
                                        and it starts where weights are still in the cache;
                                        any value gives the same bits                      */
    void *scratch;                   /* fastgru_scratch_size bytes, aligned to 64          */
};

/* Kernels for one instruction set, dtype and type of weights. */
struct fastgru_packed {
    size_t itemsize;                 /* bytes of an element of all arrays                  */
    size_t weight_size;              /* bytes of a packed weight                           */
    ptrdiff_t vlen;                  /* units that are computed side by side               */
    void (*pack)(const struct fastgru_layer *, const void *kernel, const void *recurrent_kernel,
                 const void *bias);
    void (*sequence)(const struct fastgru_layer *, struct fastgru_call *);
};

/* ---- the elementwise half of a step, for products that come from elsewhere ----------- */

/* One timestep of `rows` rows. Arrays hold the kernel's dtype; strides count elements from
 * row to row, and within a row the elements lie side by side, gates in the order z r h. */
struct fastgru_gates {
    ptrdiff_t rows;
    ptrdiff_t units;
    int activation;                  /* g and its parameter                                */
    int recurrent_activation;        /* f and its parameter                                */
    double alpha;
    double recurrent_alpha;
    const void *bias;                /* (3 * units)        added to xw; reset after: z and r
                                        with the recurrent bias in it                      */
    const void *recurrent_bias;      /* (units)            bh; reset after only            */
    void *xw;                        /* (rows, 3 * units)  x.kernel; reset before: its r columns
                                        hold (r * h).Uh when gates_update comes to them    */
    ptrdiff_t xw_stride;
    void *hu;                        /* (rows, 3 * units)  h.recurrent_kernel; reset before:
                                        (rows, 2 * units)  its z and r columns, the latter
                                        replaced by r * h in gates_reset                   */
    void *h;                         /* (rows, units)      in: state, out: the next state  */
    void *out;                       /* (rows, units)      overwritten; NULL: not wanted   */
    ptrdiff_t out_stride;
    const unsigned char *mask;       /* (rows)             0: the row keeps its state; NULL:
                                        no row is masked                                   */
    ptrdiff_t mask_stride;
    unsigned char *seen;             /* (rows)             in and out: 1 once the row has had
                                        a step that was not masked                         */
    int zero_output_for_mask;
};

typedef void (*fastgru_gates_kernel)(const struct fastgru_gates *step);

/* y = f(x), elementwise; y may be x. */
typedef void (*fastgru_activate)(
    int activation, double alpha,
    ptrdiff_t n,
    const void *x,                   /* (n) */
    void *y);                        /* (n)  overwritten */

struct fastgru_functions {
    fastgru_gates_kernel gates_reset_after; /* the whole step after xw and hu              */
    fastgru_gates_kernel gates_reset;       /* reset before: r * h                         */
    fastgru_gates_kernel gates_update;      /* reset before: the rest, after (r * h).Uh    */
    fastgru_activate activate;
};

/* ---- the table of kernels ------------------------------------------------------------ */

/* One instruction set. */
struct fastgru_kernels {
    const char *isa;
    int fused;                       /* multiply-adds round once: bits are those of all such rows */
    struct fastgru_packed f32;
    struct fastgru_packed f64;
    struct fastgru_packed f16;       /* float16 weights, float32 all else; sequence NULL: none  */
    struct fastgru_functions f32_functions;
    struct fastgru_functions f64_functions;
};

/* ---- memory -------------------------------------------------------------------------- */

/* Everything begins at a cache line. */
static inline size_t fastgru_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static inline size_t fastgru_panel_count(const struct fastgru_layer *layer)
{
    return (size_t)((layer->units + layer->kernels->vlen - 1) / layer->kernels->vlen);
}

static inline size_t fastgru_candidate_count(const struct fastgru_layer *layer)
{
    return layer->reset_after ? 0 : (fastgru_panel_count(layer) + 2) / 3;
}

/* Where in `memory` weights lie, unless it is NULL; returns the bytes of all. */
static inline size_t fastgru_lay_out(struct fastgru_layer *layer, char *memory)
{
    const struct fastgru_packed *kernels = layer->kernels;
    const size_t rows = (size_t)layer->features * 3 + (size_t)layer->units * (layer->reset_after ? 3 : 2);
    const size_t vector = (size_t)kernels->vlen * kernels->weight_size, panels = fastgru_panel_count(layer);
    const size_t biases = fastgru_lines(panels * 4 * (size_t)kernels->vlen * kernels->itemsize);
    layer->panel_bytes = fastgru_lines(rows * vector);
    layer->candidate_bytes = fastgru_lines((size_t)layer->units * 3 * vector);
    if (memory) {
        layer->biases = memory;
        layer->panels = memory + biases;
        layer->candidates = layer->panels + panels * layer->panel_bytes;
    }
    return biases + panels * layer->panel_bytes + fastgru_candidate_count(layer) * layer->candidate_bytes;
}

/* Rows that go through all timesteps together, and steps whose x.kernel is computed ahead of them:
 * as many as stay in the second-level cache, none if that is fewer than two. */
struct fastgru_blocks {
    ptrdiff_t rows;
    ptrdiff_t steps;
    size_t state_bytes;              /* (rows, units)                                      */
    size_t xw_bytes;                 /* (steps, rows, panels, 3, vlen)                     */
};

enum {
    FASTGRU_BLOCK_ROWS = 128,        /* a multiple of 8, which every tile divides          */
    FASTGRU_CHUNK_BYTES = 256 << 10,
    FASTGRU_SCRATCH_BYTES = 3 << 20  /* beyond it, fewer rows                              */
};

static inline struct fastgru_blocks fastgru_blocking(
    const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps)
{
    const size_t itemsize = layer->kernels->itemsize;
    const size_t row_bytes = fastgru_panel_count(layer) * 3 * (size_t)layer->kernels->vlen * itemsize;
    struct fastgru_blocks b;
    b.rows = FASTGRU_BLOCK_ROWS;
    while (b.rows > 8 && (size_t)b.rows * 2 * row_bytes > FASTGRU_SCRATCH_BYTES)
        b.rows -= 8;
    if (b.rows < batch) {
        const ptrdiff_t blocks = batch / b.rows + (batch % b.rows != 0);
        b.rows = (batch / blocks + (batch % blocks != 0) + 7) / 8 * 8;  /* of one size, nearly */
    } else {
        b.rows = batch;
    }
    b.steps = b.rows ? (ptrdiff_t)(FASTGRU_CHUNK_BYTES / ((size_t)b.rows * row_bytes)) : 0;
    b.steps = b.steps < timesteps ? b.steps : timesteps;
    b.steps = b.steps < 2 ? 0 : b.steps;
    b.state_bytes = fastgru_lines((size_t)b.rows * (size_t)layer->units * itemsize);
    b.xw_bytes = fastgru_lines((size_t)(b.steps ? b.steps : !layer->reset_after) * (size_t)b.rows * row_bytes);
    return b;
}

/* One pass over the packed weights: x.kernel of some rows, or one timestep of them. */
struct fastgru_pass {
    ptrdiff_t rows;
    const void *x;                   /* (rows, features)   NULL: xw holds x.kernel + bias  */
    ptrdiff_t x_stride;
    void *xw;                        /* (rows, panels, 3, vlen)  in, out or scratch        */
    ptrdiff_t xw_stride;
    const void *h;                   /* (rows, units)      state before the step           */
    void *h_next;                    /* (rows, units)      overwritten; must not alias h   */
    void *rh;                        /* (rows, units)      reset before: scratch           */
    void *out;                       /* (rows, units)      overwritten; or NULL            */
    ptrdiff_t out_stride;
    const unsigned char *fate;       /* (rows)             what becomes of a row; NULL: all step */
    int backwards;                   /* from the last panel to the first?                  */
};

enum { FASTGRU_STEPS, FASTGRU_KEEPS, FASTGRU_ZEROES };  /* fates: the last two are masked, output the
                                                          state or zeros                    */

/* Helpers take vectors by value, but never across the bounds of this file. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

/* ---- the instruction sets, best first --------------------------------------------- */

#ifdef FASTGRU_X86

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c")
#endif
#define FASTGRU_ISA avx512
#define FASTGRU_VBYTES 64
#define FASTGRU_REGISTERS 32
#define FASTGRU_FMA 1
#define FASTGRU_HALF 1
#include "kernels.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define FASTGRU_ISA avx2
#define FASTGRU_VBYTES 32
#define FASTGRU_REGISTERS 16
#define FASTGRU_FMA 1
#define FASTGRU_HALF 1
#include "kernels.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define FASTGRU_ISA sse2
#define FASTGRU_VBYTES 16
#define FASTGRU_REGISTERS 16
#define FASTGRU_FMA 0
#define FASTGRU_HALF 0
#include "kernels.h"

#elif !FASTGRU_SCALAR && defined(__aarch64__)
#define FASTGRU_ISA neon
#define FASTGRU_VBYTES 16
#define FASTGRU_REGISTERS 32
#define FASTGRU_FMA 1
#define FASTGRU_HALF 1
#include "kernels.h"

#else
#define FASTGRU_ISA generic
#define FASTGRU_VBYTES 16
#define FASTGRU_REGISTERS 16
#define FASTGRU_FMA 0
#define FASTGRU_HALF 0
#include "kernels.h"
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/* The usable rows, best first; NULL behind the last. The only question to the CPU. */
static inline const struct fastgru_kernels *fastgru_kernels_at(int index)
{
#ifdef FASTGRU_X86
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
        && __builtin_cpu_supports("f16c");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && index-- == 0)
        return &fastgru_kernels_row_avx512;
    if (avx2 && index-- == 0)
        return &fastgru_kernels_row_avx2;
    return index == 0 ? &fastgru_kernels_row_sse2 : NULL;
#elif !FASTGRU_SCALAR && defined(__aarch64__)
    return index == 0 ? &fastgru_kernels_row_neon : NULL;
#else
    return index == 0 ? &fastgru_kernels_row_generic : NULL;
#endif
}

/* ---- what to call -------------------------------------------------------------------- */

/* Bytes of the packed weights: about those of kernel and recurrent kernel. */
static inline size_t fastgru_packed_size(const struct fastgru_layer *layer)
{
    struct fastgru_layer copy = *layer;
    return fastgru_lay_out(&copy, NULL);
}

/* Pack weights as Keras keeps them, columns z | r | h, of the kernels' dtype (float32 for f16, and then
 * none but NaN beyond +-65504), into memory that the layer refers to from then on. */
static inline void fastgru_pack(
    struct fastgru_layer *layer,
    const void *kernel,              /* (features, 3 * units)                              */
    const void *recurrent_kernel,    /* (units, 3 * units)                                 */
    const void *bias,                /* (3 * units), reset after (2, 3 * units), or NULL   */
    void *memory)                    /* fastgru_packed_size bytes, aligned to 64           */
{
    fastgru_lay_out(layer, (char *)memory);
    layer->kernels->pack(layer, kernel, recurrent_kernel, bias);
}

/* Bytes of scratch that calls of up to this size need: at most 4 MiB, or one step of 8 rows. */
static inline size_t fastgru_scratch_size(
    const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps)
{
    const struct fastgru_blocks b = fastgru_blocking(layer, batch, timesteps);
    return (layer->reset_after ? 1 : 2) * b.state_bytes + b.xw_bytes + fastgru_lines(2 * (size_t)b.rows);
}

/* Run a call of at least one timestep. */
static inline void fastgru_sequence(const struct fastgru_layer *layer, struct fastgru_call *call)
{
    layer->kernels->sequence(layer, call);
}

/* One timestep of rows that lie side by side. */
static inline void fastgru_step(
    const struct fastgru_layer *layer,
    ptrdiff_t batch,
    const void *x,                   /* (batch, features)                                  */
    void *state,                     /* (batch, units)     in and out                      */
    unsigned *turn,                  /* in and out: 0 before the first step of a stream    */
    void *scratch)                   /* fastgru_scratch_size(layer, batch, 1) bytes        */
{
    struct fastgru_call call;
    memset(&call, 0, sizeof call);
    call.batch = batch, call.timesteps = 1;
    call.x = x, call.x_batch_stride = layer->features;
    call.initial_state = call.state = state;
    call.turn = *turn, call.scratch = scratch;
    fastgru_sequence(layer, &call);
    *turn = call.turn;
}

/* What the inclusions left behind; all names that stay begin with fastgru or FASTGRU. */
#undef KERNEL
#undef real
#undef lane
#undef REAL_C
#undef REAL_MAX
#undef MANTISSA
#undef EXPONENT_BIAS
#undef VLEN
#undef LANES_BELOW
#undef vreal
#undef vint
#undef vbits
#undef vfrom_bits
#undef vset
#undef vload
#undef vstore
#undef vload_half
#undef to_half
#undef vless
#undef vselect
#undef vat_least
#undef vat_most
#undef vabs
#undef vcopysign
#undef vfma
#undef vproduct_error
#undef vnearest
#undef vexp2i
#undef vpolynomial

#endif
