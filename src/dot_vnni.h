/* dot_vnni.h - groups of four int8 weights by four unsigned bytes (VNNI): a factor q is 256 high + low - 2^15, and a
 * part is the sums of the low or of the high bytes of a group. All of it modulo 2^32, which the result is below. */

#define DOT_PARTS 2
#define DOT_BY_ROW 1
#define DOT_KIND "x"

#if VBYTES == 64
#define DOT_TYPE __m512i
#define DOT_LOAD(p) _mm512_loadu_si512(p)
#define DOT_FOUR(x) _mm512_set1_epi32(x)
#define DOT_BYTES(sums, x, w) _mm512_dpbusd_epi32(sums, x, w)
#else
#define DOT_TYPE __m256i
#define DOT_LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define DOT_FOUR(x) _mm256_set1_epi32(x)
#define DOT_BYTES(sums, x, w) _mm256_dpbusd_avx_epi32(sums, x, w)
#endif

INLINE DOT_TYPE FORMAT(weights_of)(const char *p, int part)
{
    (void)part;
    return DOT_LOAD(p);
}

INLINE DOT_TYPE FORMAT(factors_of)(const char *q, int part)
{
    int four;
    memcpy(&four, q + 4 * part, sizeof four);
    return DOT_FOUR(four);
}

INLINE vint FORMAT(dot)(vint sums, DOT_TYPE w, DOT_TYPE x)
{
    return (vint)DOT_BYTES((DOT_TYPE)sums, x, w);
}

INLINE vint FORMAT(total)(const vint *sums, vint offset)
{
    return (vint)(((vuint)sums[1] << 8) + (vuint)sums[0] - (vuint)offset);
}

/* Of each group the low bytes, then the high ones. */
INLINE void FORMAT(arrange_factors)(char *q, ptrdiff_t count)
{
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    for (ptrdiff_t k = 0; k < count; k += 8) {
        __m128i *at = (__m128i *)(void *)(q + 2 * k);
        _mm_storeu_si128(at, _mm_shuffle_epi8(_mm_xor_si128(_mm_loadu_si128(at), _mm_set1_epi16(-0x8000)), order));
    }
}

INLINE int FORMAT(arranged_factor)(const char *q, ptrdiff_t k)
{
    const unsigned char *group = (const unsigned char *)q + k / 4 * 8 + k % 4;
    return 256 * group[4] + group[0] - 0x8000;
}

#undef DOT_LOAD
#undef DOT_FOUR
#undef DOT_BYTES
