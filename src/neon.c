/* neon.c - the kernels for arm64; empty elsewhere. */

#include "isas.h"
#include "layout.h"

#if ARM64

#define ISA neon
#define VOCABULARY "simd_neon.h"
#define VBYTES 16
#define REGISTERS 32
#define FUSED 1
#define HALF 1
#define DOT "dot_neon.h"
#define BYTE_DOT "dot_neondot.h"
#define BYTE_ISA neondot
#define BYTE_TARGET "dotprod"
#define BYTE_PRAGMA _Pragma("GCC target(\"arch=armv8.2-a+dotprod\")")
#include "kernels.h"

#endif
