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
#include "kernels.h"

#endif
