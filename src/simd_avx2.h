/* simd_avx2.h - AVX2 with FMA and F16C: a vector is 32 bytes, and lanes are masked by the sign of integers. */

#if DOUBLE

#define LANES_BELOW(n) ((__m256i)((vint){0, 1, 2, 3} < (lane)(n)))

INLINE vreal vload_part(const real *p, int n)
{
    return (vreal)_mm256_maskload_pd(p, LANES_BELOW(n));
}

INLINE void vstore_part(real *p, vreal x, int n)
{
    _mm256_maskstore_pd(p, LANES_BELOW(n), (__m256d)x);
}

/* max and min return their second operand unless the first is really beyond it */
INLINE vreal vat_least(vreal x, real low)
{
    return (vreal)_mm256_max_pd((__m256d)vset(low), (__m256d)x);
}

INLINE vreal vat_most(vreal x, real high)
{
    return (vreal)_mm256_min_pd((__m256d)vset(high), (__m256d)x);
}

INLINE vreal vfma(vreal a, vreal b, vreal c)
{
    return (vreal)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}

#else

#define LANES_BELOW(n) ((__m256i)((vint){0, 1, 2, 3, 4, 5, 6, 7} < (lane)(n)))

INLINE vreal vload_part(const real *p, int n)
{
    return (vreal)_mm256_maskload_ps(p, LANES_BELOW(n));
}

INLINE void vstore_part(real *p, vreal x, int n)
{
    _mm256_maskstore_ps(p, LANES_BELOW(n), (__m256)x);
}

INLINE vreal vat_least(vreal x, real low)
{
    return (vreal)_mm256_max_ps((__m256)vset(low), (__m256)x);
}

INLINE vreal vat_most(vreal x, real high)
{
    return (vreal)_mm256_min_ps((__m256)vset(high), (__m256)x);
}

INLINE vreal vfma(vreal a, vreal b, vreal c)
{
    return (vreal)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

INLINE vreal vload_half(const uint16_t *p)
{
    return (vreal)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

INLINE uint16_t to_half(real x)
{
    return (uint16_t)_cvtss_sh(x, 0);
}

#endif

#undef LANES_BELOW
