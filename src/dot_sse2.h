/* dot_sse2.h - groups of four int8 weights by widening them: a part is the sums of half of the units, two each. */

#define DOT_PARTS 2
#define DOT_BY_ROW 0
#define DOT_KIND "x"
#define DOT_TYPE __m128i

INLINE __m128i FORMAT(weights_of)(const char *p, int part)
{
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(p + 8 * part));
    return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
}

INLINE __m128i FORMAT(factors_of)(const char *q, int part)
{
    const __m128i four = _mm_loadl_epi64((const __m128i *)(const void *)q);
    (void)part;
    return _mm_unpacklo_epi64(four, four);
}

INLINE vint FORMAT(dot)(vint sums, __m128i w, __m128i x)
{
    return (vint)_mm_add_epi32((__m128i)sums, _mm_madd_epi16(w, x));
}

INLINE vint FORMAT(total)(const vint *sums, vint offset)
{
    const __m128 a = (__m128)sums[0], b = (__m128)sums[1];
    (void)offset;
    return (vint)_mm_shuffle_ps(a, b, 0x88) + (vint)_mm_shuffle_ps(a, b, 0xdd);
}

#include "dot_int16.h"
