/* compiler.h - what the engine needs of a compiler and of the system's headers.
 *
 * FASTGRU_SCALAR is 1 where the compiler has no vectors, or is to use none: C99 alone, with vectors of one lane. */

#ifndef FASTGRU_COMPILER_H
#define FASTGRU_COMPILER_H

#ifdef __FAST_MATH__
#error "fastgru needs IEEE arithmetic: compile without -ffast-math"
#endif

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* clang-cl has the extensions, but not by default the library that the CPU is asked by */
#if (defined(__GNUC__) || defined(__clang__)) && !defined(_MSC_VER) && !defined(FASTGRU_SCALAR)
#define FASTGRU_SCALAR 0
#define INLINE static inline __attribute__((always_inline))
#define OUTLINE static __attribute__((noinline))
#define BARRIER __asm__ volatile("" ::: "memory")  /* what is stored before it is in memory */
#define CHANGED(vector, kind) __asm__ volatile("" : "+" kind(vector))  /* as far as the compiler knows */
#define PREFETCH(address) __builtin_prefetch((const void *)(address))  /* which may be any */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_TILE UNROLL
#define UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#define UNROLL_TILE _Pragma("GCC unroll 12")
#define UNROLL_TWICE _Pragma("GCC unroll 2")
#endif
#else
#ifndef FASTGRU_SCALAR
#define FASTGRU_SCALAR 1
#endif
#define INLINE static inline
#define OUTLINE static
#define BARRIER ((void)0)
#define CHANGED(vector, kind) ((void)0)
#define PREFETCH(address) ((void)0)
#define UNROLL
#define UNROLL_TILE
#define UNROLL_TWICE
#endif

#if defined(__GNUC__) && !defined(_WIN32)
#define HIDDEN __attribute__((visibility("hidden")))  /* between files of the engine alone */
#define VISIBLE __attribute__((visibility("default")))  /* for whoever loads the library              */
#else
#define HIDDEN
#define VISIBLE
#endif

#if !FASTGRU_SCALAR && defined(__x86_64__)
#define X86_64 1
#define ARM64 0
#define RELAX _mm_pause()            /* in a loop that waits for another thread            */
#include <immintrin.h>
#elif !FASTGRU_SCALAR && defined(__aarch64__)
#define X86_64 0
#define ARM64 1
#define RELAX __asm__ volatile("yield")
#include <arm_neon.h>
#else
#define RELAX ((void)0)
#define X86_64 0
#define ARM64 0
#endif

/* Helpers take vectors by value, but never from one file to another. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#endif
