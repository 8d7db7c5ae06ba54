/* avx2.c - the kernels for AVX2 with FMA and F16C; empty elsewhere. */

#include "isas.h"
#include "layout.h"

#if X86_64

#define TARGET "avx2,fma,f16c"
#ifdef __clang__
#pragma clang attribute push(__attribute__((target(TARGET))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define ISA avx2
#define VOCABULARY "simd_avx2.h"
#define VBYTES 32
#define REGISTERS 16
#define FUSED 1
#define HALF 1
#define DOT "dot_avx2.h"
#define BYTE_DOT "dot_vnni.h"
#define BYTE_ISA avxvnni
#define BYTE_TARGET "avx2,fma,f16c,avxvnni"
#define BYTE_PRAGMA _Pragma("GCC target(\"avx2,fma,f16c,avxvnni\")")
#include "kernels.h"

#ifdef __clang__
#pragma clang attribute pop
#endif

#endif
