/* simd_sse2.h - SSE2: a vector is 16 bytes. No masked loads, no fused multiply-add. */

INLINE vreal vload_part(const real *p, int n)
{
    return vload_lanes(p, n);
}

INLINE void vstore_part(real *p, vreal x, int n)
{
    vstore_lanes(p, x, n);
}

INLINE vreal vfma(vreal a, vreal b, vreal c)
{
    return a * b + c;
}

/* max and min return their second operand unless the first is really beyond it */
#if DOUBLE

INLINE vreal vat_least(vreal x, real low)
{
    return (vreal)_mm_max_pd((__m128d)vset(low), (__m128d)x);
}

INLINE vreal vat_most(vreal x, real high)
{
    return (vreal)_mm_min_pd((__m128d)vset(high), (__m128d)x);
}

#else

INLINE vreal vat_least(vreal x, real low)
{
    return (vreal)_mm_max_ps((__m128)vset(low), (__m128)x);
}

INLINE vreal vat_most(vreal x, real high)
{
    return (vreal)_mm_min_ps((__m128)vset(high), (__m128)x);
}

#endif
