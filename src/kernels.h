/* kernels.h - every kernel for one instruction set, and its row of the table.
 *
 * Included by the file of the instruction set, behind its target pragma, with
 *
 *     ISA          its name
 *     TARGET       what the compiler calls it, where it has a target of its own
 *     VOCABULARY   the file of its vectors
 *     VBYTES       bytes of a register (16, 32, 64); 0: there are none, one lane
 *     REGISTERS    how many registers there are (16, 32)
 *     FUSED        1 where a fused multiply-add is one instruction
 *     HALF         1 where float16 is converted by one
 *     DOT          the file of what multiplies int8 weights
 *     BYTE_DOT     where some such machines multiply bytes: the file of that, for them, and
 *     BYTE_ISA     their name, BYTE_TARGET what the compiler calls them
 *
 * What is included here is compiled for each dtype (DTYPE, DOUBLE), or for each format of packed weights (WEIGHTS,
 * FLOAT16: float16 weights, QUANTIZED: int8 weights, float32 all else). KERNEL and FORMAT name things accordingly: tanh_f32_avx2. */

#define PASTE(name, type, isa) name##_##type##_##isa
#define NAME(name, type, isa) PASTE(name, type, isa)
#define KERNEL(name) NAME(name, DTYPE, ISA)
#define FORMAT(name) NAME(name, WEIGHTS, FORMAT_ISA)

#define DTYPE f32
#define DOUBLE 0
#include "simd.h"
#include VOCABULARY
#include "activations.h"
#include "gates.h"
#include "biases.h"
#include "roofline.h"
#define WEIGHTS f32
#define FLOAT16 0
#define QUANTIZED 0
#include "format.h"
#if HALF
#define WEIGHTS f16
#define FLOAT16 1
#define QUANTIZED 0
#include "format.h"
#endif
#define WEIGHTS i8
#define FLOAT16 0
#define QUANTIZED 1
#include "format.h"
#ifdef BYTE_DOT
#undef DOT
#define DOT BYTE_DOT
#define WEIGHTS i8
#define FLOAT16 0
#define QUANTIZED 1
#define FORMAT_ISA BYTE_ISA
#ifdef __clang__                     /* of two targets it would take the first              */
#ifdef TARGET
#pragma clang attribute pop
#endif
#pragma clang attribute push(__attribute__((target(BYTE_TARGET))), apply_to = function)
#else
#pragma GCC push_options
BYTE_PRAGMA
#endif
#include "format.h"
#ifdef __clang__
#pragma clang attribute pop
#ifdef TARGET
#pragma clang attribute push(__attribute__((target(TARGET))), apply_to = function)
#endif
#else
#pragma GCC pop_options
#endif
#endif
#undef DTYPE
#undef DOUBLE

#define DTYPE f64
#define DOUBLE 1
#include "simd.h"
#include VOCABULARY
#include "activations.h"
#include "gates.h"
#include "biases.h"
#define WEIGHTS f64
#define FLOAT16 0
#define QUANTIZED 0
#include "format.h"

/* ---- the table ------------------------------------------------------------------------- */

#define STRING(text) QUOTE(text)
#define QUOTE(text) #text
#define ROW_NAME(isa) PASTE_ROW_NAME(isa)
#define PASTE_ROW_NAME(isa) fastgru_kernels_##isa
#define FORMAT_ROW(weights, itemsize, weight_size, quantized, isa)                                   \
    {itemsize, weight_size, quantized, VBYTES ? VBYTES / itemsize : 1, FASTGRU_FULL_TILE, {1, 0},    \
     NAME(pack, weights, isa), NAME(project_all, weights, isa), NAME(step, weights, isa), NAME(dense_all, weights, isa)}
#define NO_FORMAT {4, 1, 0, 1, FASTGRU_FULL_TILE, {1, 0}, NULL, NULL, NULL, NULL}
#if HALF
#define F16_ROW(isa) FORMAT_ROW(f16, 4, 2, 0, isa)
#else
#define F16_ROW(isa) NO_FORMAT
#endif
#ifdef BYTE_DOT
#define BYTE_ROW FORMAT_ROW(i8, 4, 1, 1, BYTE_ISA)
#define BYTE_MULTIPLY_ADDS NAME(multiply_adds, i8, BYTE_ISA)
#else
#define BYTE_ROW NO_FORMAT
#define BYTE_MULTIPLY_ADDS NULL
#endif
#define FUNCTIONS_ROW(dtype)                                             \
    {NAME(gates_after, dtype, ISA), NAME(gates_reset, dtype, ISA), \
     NAME(gates_update, dtype, ISA), NAME(activate, dtype, ISA)}

const struct fastgru_kernels ROW_NAME(ISA) = {
    STRING(ISA),
    FUSED,
    FORMAT_ROW(f32, 4, 4, 0, ISA),
    FORMAT_ROW(f64, 8, 8, 0, ISA),
    F16_ROW(ISA),
    FORMAT_ROW(i8, 4, 1, 1, ISA),
    BYTE_ROW,
    FUNCTIONS_ROW(f32),
    FUNCTIONS_ROW(f64),
    {NAME(multiply_adds, f32, ISA), NAME(reads, f32, ISA), NAME(multiply_adds, i8, ISA), BYTE_MULTIPLY_ADDS}};
