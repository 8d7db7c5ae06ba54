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
 * masks of its neighbours, and on every instruction set that has fused multiply-adds: what is added
 * to what depends on the layer's size alone.
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

#include "layer.h"

/* clang-cl has the extensions, but not by default the library that the CPU is asked by */
#if (defined(__GNUC__) || defined(__clang__)) && !defined(_MSC_VER) && !defined(FASTGRU_SCALAR)
#define FASTGRU_SCALAR 0
#define FASTGRU_INLINE static inline __attribute__((always_inline))
#define FASTGRU_OUTLINE static __attribute__((noinline))
#define FASTGRU_BARRIER __asm__ volatile("" ::: "memory")  /* what is stored before it is in memory */
#define FASTGRU_PREFETCH(address) __builtin_prefetch((const void *)(address))  /* which may be any */
#ifdef __clang__
#define FASTGRU_UNROLL _Pragma("clang loop unroll(full)")
#define FASTGRU_UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#else
#define FASTGRU_UNROLL _Pragma("GCC unroll 8")
#define FASTGRU_UNROLL_TWICE _Pragma("GCC unroll 2")
#endif
#else
#ifndef FASTGRU_SCALAR
#define FASTGRU_SCALAR 1
#endif
#define FASTGRU_INLINE static inline
#define FASTGRU_OUTLINE static
#define FASTGRU_BARRIER ((void)0)
#define FASTGRU_PREFETCH(address) ((void)0)
#define FASTGRU_UNROLL
#define FASTGRU_UNROLL_TWICE
#endif

#if !FASTGRU_SCALAR && defined(__x86_64__)
#define FASTGRU_X86 1
#include <immintrin.h>
#include <cpuid.h>
#elif !FASTGRU_SCALAR && defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FASTGRU_PASTE(name, dtype, isa) name##_##dtype##_##isa
#define FASTGRU_NAME(name, dtype, isa) FASTGRU_PASTE(name, dtype, isa)
#define FASTGRU_QUOTE(text) #text
#define FASTGRU_STRING(text) FASTGRU_QUOTE(text)
#define KERNEL(name) FASTGRU_NAME(name, FASTGRU_DTYPE, FASTGRU_ISA)

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
#if defined(__clang__) || __GNUC__ < 11  /* Clang 14 does not know the name f16c */
    unsigned eax, ebx, ecx, edx;
    const int f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
#else
    const int f16c = __builtin_cpu_supports("f16c");
#endif
    const int avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
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

/* Bytes of scratch that suffice for every call of up to this size: at most 4 MiB, or one step of 8 rows. */
static inline size_t fastgru_scratch_size(
    const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps)
{
    const ptrdiff_t most = fastgru_block_rows(layer), rows = batch < most ? batch : most;
    const size_t row_bytes = fastgru_xw_bytes(layer), step = layer->reset_after ? 0 : (size_t)rows * row_bytes;
    const size_t ahead = fastgru_rows_ahead(layer);
    const size_t all = (size_t)rows * (size_t)(timesteps < (ptrdiff_t)ahead ? timesteps : (ptrdiff_t)ahead);
    const size_t chunk = timesteps < 2 ? 0 : (all < ahead ? all : ahead) * row_bytes;
    return (layer->reset_after ? 2 : 3) * fastgru_state_bytes(layer, rows)
        + fastgru_lines(chunk > step ? chunk : step) + fastgru_lines(2 * (size_t)rows);
}

/* The same for calls with lengths. */
static inline size_t fastgru_ragged_scratch_size(
    const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps)
{
    const struct fastgru_ragged b = fastgru_ragged_blocking(layer, batch, timesteps);
    return (layer->reset_after ? 2 : 3) * b.state_bytes + b.xw_bytes + b.x_bytes;
}

/* Set a call's lengths and rows: the longest first, else as they come. Returns 0 if a row has fewer steps than none
 * or more than the call. */
static inline int fastgru_set_lengths(
    struct fastgru_call *call,
    const ptrdiff_t *steps,          /* (batch)  of each row                               */
    ptrdiff_t *memory)               /* (3 * batch + timesteps + 1)  to be kept as long as the call */
{
    ptrdiff_t *lengths = memory, *rows = lengths + call->batch, *given = rows + call->batch;
    ptrdiff_t *places = given + call->batch, place = 0;
    memset(places, 0, (size_t)(call->timesteps + 1) * sizeof *places);
    for (ptrdiff_t row = 0; row < call->batch; ++row) {
        given[row] = steps[row];     /* read once: another thread may write there          */
        if (given[row] < 0 || given[row] > call->timesteps)
            return 0;
        ++places[given[row]];
    }
    for (ptrdiff_t length = call->timesteps; length >= 0; --length) {
        const ptrdiff_t count = places[length];
        places[length] = place;
        place += count;
    }
    for (ptrdiff_t row = 0; row < call->batch; ++row) {
        const ptrdiff_t at = places[given[row]]++;
        lengths[at] = given[row];
        rows[at] = row;
    }
    call->lengths = lengths;
    call->rows = rows;
    return 1;
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
#undef ulane
#undef REAL_C
#undef REAL_MAX
#undef MANTISSA
#undef EXPONENT_BIAS
#undef VLEN
#undef LANES_BELOW
#undef X86
#undef vreal
#undef vint
#undef vuint
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
