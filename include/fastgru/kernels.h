/* kernels.h - one row of the table of kernels: every kernel for one instruction set.
 *
 * Included by engine.h once per instruction set, inside its target pragma, with
 * FASTGRU_ISA, FASTGRU_VBYTES and FASTGRU_FMA; takes them away again. */

#define FASTGRU_DTYPE f32
#define FASTGRU_DOUBLE 0
#include "simd.h"
#include "activations.h"
#include "gates.h"
#undef FASTGRU_DTYPE
#undef FASTGRU_DOUBLE

#define FASTGRU_DTYPE f64
#define FASTGRU_DOUBLE 1
#include "simd.h"
#include "activations.h"
#include "gates.h"
#undef FASTGRU_DTYPE
#undef FASTGRU_DOUBLE

#define FASTGRU_FUNCTIONS(dtype)                               \
    {                                                          \
        FASTGRU_NAME(gates_reset_after, dtype, FASTGRU_ISA),   \
        FASTGRU_NAME(gates_reset, dtype, FASTGRU_ISA),         \
        FASTGRU_NAME(gates_update, dtype, FASTGRU_ISA),        \
        FASTGRU_NAME(activate, dtype, FASTGRU_ISA)             \
    }

static const struct fastgru_kernels FASTGRU_NAME(fastgru_kernels, row, FASTGRU_ISA) = {
    FASTGRU_STRING(FASTGRU_ISA), FASTGRU_FUNCTIONS(f32), FASTGRU_FUNCTIONS(f64)
};

#undef FASTGRU_FUNCTIONS
#undef FASTGRU_ISA
#undef FASTGRU_VBYTES
#undef FASTGRU_FMA
