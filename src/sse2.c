/* sse2.c - the kernels for SSE2, which every x86-64 has; empty elsewhere. */

#include "isas.h"
#include "layout.h"

#if X86_64

#define ISA sse2
#define VOCABULARY "simd_sse2.h"
#define VBYTES 16
#define REGISTERS 16
#define FUSED 0
#define HALF 0
#define DOT "dot_sse2.h"
#include "kernels.h"

#endif
