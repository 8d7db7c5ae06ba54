/* avx512.c - the kernels for AVX-512 (F, VL, DQ, BW); empty elsewhere. */

#include "isas.h"
#include "layout.h"

#if X86_64

#define TARGET "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c"
#ifdef __clang__
#pragma clang attribute push(__attribute__((target(TARGET))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c")
#endif

#define ISA avx512
#define VOCABULARY "simd_avx512.h"
#define VBYTES 64
#define REGISTERS 32
#define FUSED 1
#define HALF 1
#define DOT "dot_avx512.h"
#define BYTE_DOT "dot_vnni.h"
#define BYTE_ISA avx512vnni
#define BYTE_TARGET "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c,avx512vnni"
#define BYTE_PRAGMA _Pragma("GCC target(\"avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c,avx512vnni\")")
#include "kernels.h"

#ifdef __clang__
#pragma clang attribute pop
#endif

#endif
