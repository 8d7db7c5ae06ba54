/* dot_avx512.h - groups of four int8 weights by widening them: a part is the sums of half of the units, two each. */

#define DOT_PARTS 2
#define DOT_BY_ROW 0
#define DOT_KIND "x"
#define DOT_TYPE __m512i

INLINE __m512i FORMAT(weights_of)(const char *p, int part)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(p + 32 * part)));
}

INLINE __m512i FORMAT(factors_of)(const char *q, int part)
{
    long long four;
    (void)part;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi64(four);
}

INLINE vint FORMAT(dot)(vint sums, __m512i w, __m512i x)
{
    return (vint)_mm512_add_epi32((__m512i)sums, _mm512_madd_epi16(w, x));
}

INLINE vint FORMAT(total)(const vint *sums, vint offset)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    (void)offset;
    return (vint)_mm512_add_epi32(_mm512_permutex2var_epi32((__m512i)sums[0], even, (__m512i)sums[1]),
                                  _mm512_permutex2var_epi32((__m512i)sums[0], odd, (__m512i)sums[1]));
}

#include "dot_int16.h"
