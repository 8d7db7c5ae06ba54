/* kernels.h - one row of the table of kernels: every kernel for one instruction set.
 *
 * Included by engine.h once per instruction set, inside its target pragma, with FASTGRU_ISA,
 * FASTGRU_VBYTES, FASTGRU_REGISTERS, FASTGRU_FMA and FASTGRU_HALF; takes them away again. */

#define PANEL(name) FASTGRU_NAME(name, FASTGRU_WEIGHTS, FASTGRU_ISA)

#define FASTGRU_DTYPE f32
#define FASTGRU_DOUBLE 0
#include "simd.h"
#include "activations.h"
#include "gates.h"
#include "roofline.h"
#define FASTGRU_WEIGHTS f32
#define FASTGRU_FLOAT16 0
#include "panel.h"
#include "sequence.h"
#undef FASTGRU_WEIGHTS
#undef FASTGRU_FLOAT16
#if FASTGRU_HALF
#define FASTGRU_WEIGHTS f16
#define FASTGRU_FLOAT16 1
#include "panel.h"
#include "sequence.h"
#undef FASTGRU_WEIGHTS
#undef FASTGRU_FLOAT16
#endif
#undef FASTGRU_DTYPE
#undef FASTGRU_DOUBLE

#define FASTGRU_DTYPE f64
#define FASTGRU_DOUBLE 1
#include "simd.h"
#include "activations.h"
#include "gates.h"
#define FASTGRU_WEIGHTS f64
#define FASTGRU_FLOAT16 0
#include "panel.h"
#include "sequence.h"
#undef FASTGRU_WEIGHTS
#undef FASTGRU_FLOAT16
#undef FASTGRU_DTYPE
#undef FASTGRU_DOUBLE

#define FASTGRU_PACKED(weights, itemsize, weight_size)                      \
    {                                                                       \
        itemsize, weight_size, FASTGRU_SCALAR ? 1 : FASTGRU_VBYTES / itemsize, \
        FASTGRU_NAME(pack, weights, FASTGRU_ISA),                           \
        FASTGRU_NAME(sequence, weights, FASTGRU_ISA)                        \
    }
#define FASTGRU_FUNCTIONS(dtype)                               \
    {                                                          \
        FASTGRU_NAME(gates_reset_after, dtype, FASTGRU_ISA),   \
        FASTGRU_NAME(gates_reset, dtype, FASTGRU_ISA),         \
        FASTGRU_NAME(gates_update, dtype, FASTGRU_ISA),        \
        FASTGRU_NAME(activate, dtype, FASTGRU_ISA)             \
    }

static const struct fastgru_kernels FASTGRU_NAME(fastgru_kernels, row, FASTGRU_ISA) = {
    FASTGRU_STRING(FASTGRU_ISA),
    FASTGRU_FMA,
    FASTGRU_PACKED(f32, 4, 4),
    FASTGRU_PACKED(f64, 8, 8),
#if FASTGRU_HALF
    FASTGRU_PACKED(f16, 4, 2),
#else
    {4, 2, 1, NULL, NULL},
#endif
    FASTGRU_FUNCTIONS(f32),
    FASTGRU_FUNCTIONS(f64),
    {FASTGRU_NAME(multiply_adds, f32, FASTGRU_ISA), FASTGRU_NAME(reads, f32, FASTGRU_ISA)}
};

#undef PANEL
#undef FASTGRU_PACKED
#undef FASTGRU_FUNCTIONS
#undef FASTGRU_ISA
#undef FASTGRU_VBYTES
#undef FASTGRU_REGISTERS
#undef FASTGRU_FMA
#undef FASTGRU_HALF
