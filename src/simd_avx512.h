/* simd_avx512.h - AVX-512: a vector is 64 bytes, and lanes are masked by bits. */

#if DOUBLE

INLINE vreal vload_part(const real *p, int n)
{
    return (vreal)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
}

INLINE void vstore_part(real *p, vreal x, int n)
{
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)x);
}

/* max and min return their second operand unless the first is really beyond it */
INLINE vreal vat_least(vreal x, real low)
{
    return (vreal)_mm512_maskz_max_pd((__mmask8)-1, (__m512d)vset(low), (__m512d)x);
}

INLINE vreal vat_most(vreal x, real high)
{
    return (vreal)_mm512_maskz_min_pd((__mmask8)-1, (__m512d)vset(high), (__m512d)x);
}

INLINE vreal vfma(vreal a, vreal b, vreal c)
{
    return (vreal)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}

#else

INLINE vreal vload_part(const real *p, int n)
{
    return (vreal)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

INLINE void vstore_part(real *p, vreal x, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x);
}

INLINE vreal vat_least(vreal x, real low)
{
    return (vreal)_mm512_maskz_max_ps((__mmask16)-1, (__m512)vset(low), (__m512)x);
}

INLINE vreal vat_most(vreal x, real high)
{
    return (vreal)_mm512_maskz_min_ps((__mmask16)-1, (__m512)vset(high), (__m512)x);
}

INLINE vreal vfma(vreal a, vreal b, vreal c)
{
    return (vreal)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

INLINE vreal vload_half(const uint16_t *p)
{
    return (vreal)_mm512_maskz_cvtph_ps((__mmask16)-1, _mm256_loadu_si256((const __m256i *)p));
}

INLINE uint16_t to_half(real x)
{
    return (uint16_t)_cvtss_sh(x, 0);
}

#endif
