/* engine.h - the elementwise half of a GRU step, for the best instruction set at hand.
 *
 *     z  = f(xz + hz)                                 update gate
 *     r  = f(xr + hr)                                 reset gate
 *     hh = g(xh + r * (h.Uh + bh))    reset after     candidate
 *     hh = g(xh + (r * h).Uh)         reset before
 *     h' = z * h + (1 - z) * hh
 *
 * where xz, xr, xh are the columns of x.kernel + bias and hz, hr those of h.recurrent_kernel.
 * Header only; C99 and C++11, with GNU extensions where the compiler has them; no dependency and no
 * state, so that any thread may call anything.
 *
 *     const struct fastgru_kernels *kernels = fastgru_kernels_at(0);   (the fastest)
 *     kernels->f32.gates_reset_after(&step);
 *
 * Kernels are void and cannot fail. Compile with -ffp-contract=off: error bounds, and that hard_sigmoid
 * is Keras' to the bit, want the FMAs that are written out and no others. With GCC and Clang every
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
#else
#ifndef FASTGRU_SCALAR
#define FASTGRU_SCALAR 1
#endif
#define FASTGRU_INLINE static inline
#define FASTGRU_OUTLINE static
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

/* One timestep of `rows` rows. Arrays hold the kernel's dtype; strides count elements from
 * row to row, and within a row the elements lie side by side, gates in the order z r h. */
struct fastgru_step {
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

typedef void (*fastgru_gates)(const struct fastgru_step *step);

/* y = f(x), elementwise; y may be x. */
typedef void (*fastgru_activate)(
    int activation, double alpha,
    ptrdiff_t n,
    const void *x,                   /* (n) */
    void *y);                        /* (n)  overwritten */

struct fastgru_functions {
    fastgru_gates gates_reset_after; /* the whole step after xw and hu                     */
    fastgru_gates gates_reset;       /* reset before: r * h                                */
    fastgru_gates gates_update;      /* reset before: the rest, after the product of r * h */
    fastgru_activate activate;
};

struct fastgru_kernels {
    const char *isa;
    struct fastgru_functions f32;
    struct fastgru_functions f64;
};

/* Helpers take vectors by value, but never across the bounds of this file. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

/* ---- the instruction sets, best first --------------------------------------------- */

#ifdef FASTGRU_X86

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")
#endif
#define FASTGRU_ISA avx512
#define FASTGRU_VBYTES 64
#define FASTGRU_FMA 1
#include "kernels.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define FASTGRU_ISA avx2
#define FASTGRU_VBYTES 32
#define FASTGRU_FMA 1
#include "kernels.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define FASTGRU_ISA sse2
#define FASTGRU_VBYTES 16
#define FASTGRU_FMA 0
#include "kernels.h"

#elif !FASTGRU_SCALAR && defined(__aarch64__)
#define FASTGRU_ISA neon
#define FASTGRU_VBYTES 16
#define FASTGRU_FMA 1
#include "kernels.h"

#else
#define FASTGRU_ISA generic
#define FASTGRU_VBYTES 16
#define FASTGRU_FMA 0
#include "kernels.h"
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/* The usable rows, best first; NULL behind the last. The only question to the CPU. */
static inline const struct fastgru_kernels *fastgru_kernels_at(int index)
{
#ifdef FASTGRU_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && index-- == 0)
        return &fastgru_kernels_row_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && index-- == 0)
        return &fastgru_kernels_row_avx2;
    return index == 0 ? &fastgru_kernels_row_sse2 : NULL;
#elif !FASTGRU_SCALAR && defined(__aarch64__)
    return index == 0 ? &fastgru_kernels_row_neon : NULL;
#else
    return index == 0 ? &fastgru_kernels_row_generic : NULL;
#endif
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
