/* simd_neon.h - NEON of arm64: a vector is 16 bytes. No masked loads; its own max and min order -0 below 0, unlike
 * Keras. */

INLINE vreal vload_part(const real *p, int n)
{
    return vload_lanes(p, n);
}

INLINE void vstore_part(real *p, vreal x, int n)
{
    vstore_lanes(p, x, n);
}

INLINE vreal vat_least(vreal x, real low)
{
    return vselect(vless(x, vset(low)), vset(low), x);
}

INLINE vreal vat_most(vreal x, real high)
{
    return vselect(vless(vset(high), x), vset(high), x);
}

#if DOUBLE

INLINE vreal vfma(vreal a, vreal b, vreal c)
{
    return (vreal)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}

#else

INLINE vreal vfma(vreal a, vreal b, vreal c)
{
    return (vreal)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

INLINE vreal vload_half(const uint16_t *p)
{
    return (vreal)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

INLINE uint16_t to_half(real x)
{
    return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(x))), 0);
}

#endif
