/* generic.c - the kernels for any other machine, and for a compiler without vectors; empty elsewhere. */

#include "isas.h"
#include "layout.h"

#if !X86_64 && !ARM64

#define ISA generic
#define VOCABULARY "simd_scalar.h"
#define VBYTES (FASTGRU_SCALAR ? 0 : 16)
#define REGISTERS 16
#define FUSED 0
#define HALF 0
#define DOT "dot_scalar.h"
#include "kernels.h"

#endif
