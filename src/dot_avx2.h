/* dot_avx2.h - groups of four int8 weights by widening them: a part is the sums of half of the units, two each. */

#define DOT_PARTS 2
#define DOT_BY_ROW 0
#define DOT_KIND "x"
#define DOT_TYPE __m256i

INLINE __m256i FORMAT(weights_of)(const char *p, int part)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * part)));
}

INLINE __m256i FORMAT(factors_of)(const char *q, int part)
{
    long long four;
    (void)part;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi64x(four);
}

INLINE vint FORMAT(dot)(vint sums, __m256i w, __m256i x)
{
    return (vint)_mm256_add_epi32((__m256i)sums, _mm256_madd_epi16(w, x));
}

INLINE vint FORMAT(total)(const vint *sums, vint offset)
{
    (void)offset;
    return (vint)_mm256_permute4x64_epi64(_mm256_hadd_epi32((__m256i)sums[0], (__m256i)sums[1]), 0xd8);
}

#include "dot_int16.h"
