/* isas.h - the rows that the files of instruction sets define and dispatch.c chooses from. */

#ifndef FASTGRU_ISAS_H
#define FASTGRU_ISAS_H

#include "compiler.h"
#include "fastgru/fastgru.h"

#if X86_64
extern HIDDEN const struct fastgru_kernels fastgru_kernels_avx512;
extern HIDDEN const struct fastgru_kernels fastgru_kernels_avx2;
extern HIDDEN const struct fastgru_kernels fastgru_kernels_sse2;
#elif ARM64
extern HIDDEN const struct fastgru_kernels fastgru_kernels_neon;
#else
extern HIDDEN const struct fastgru_kernels fastgru_kernels_generic;
#endif

#endif
