/* simd.h - the vector vocabulary: the only place that knows how registers look.
 *
 * Included by kernels.h once per instruction set and dtype, with
 *
 *     FASTGRU_VBYTES   bytes of a register (16, 32, 64)
 *     FASTGRU_FMA      1 where a fused multiply-add is one instruction
 *     FASTGRU_HALF     1 where float16 is converted by one
 *     FASTGRU_DOUBLE   1 for float64, 0 for float32
 *
 * and leaves behind vreal (VLEN reals), vint (VLEN integers of the same width; a mask is
 * all ones or all zeros per lane) and the verbs below. GCC and Clang get vectors of the
 * compiler's own; any other compiler gets the same verbs on one lane (FASTGRU_SCALAR).
 * All verbs are exact or correctly rounded, so a kernel differs between instruction sets
 * only where it says FASTGRU_FMA. */

/* One name for all inclusions: KERNEL adds the dtype and the instruction set. */
#ifndef vreal
#define vreal KERNEL(vreal)
#define vint KERNEL(vint)
#define vuint KERNEL(vuint)
#define vbits KERNEL(vbits)
#define vfrom_bits KERNEL(vfrom_bits)
#define vset KERNEL(vset)
#define vload KERNEL(vload)
#define vstore KERNEL(vstore)
#define vload_half KERNEL(vload_half)
#define to_half KERNEL(to_half)
#define vless KERNEL(vless)
#define vselect KERNEL(vselect)
#define vat_least KERNEL(vat_least)
#define vat_most KERNEL(vat_most)
#define vabs KERNEL(vabs)
#define vcopysign KERNEL(vcopysign)
#define vfma KERNEL(vfma)
#define vproduct_error KERNEL(vproduct_error)
#define vnearest KERNEL(vnearest)
#define vexp2i KERNEL(vexp2i)
#define vpolynomial KERNEL(vpolynomial)
#endif

#undef real
#undef lane
#undef ulane
#undef REAL_C
#undef REAL_MAX
#undef MANTISSA
#undef EXPONENT_BIAS
#undef LANES_BELOW
#undef VLEN
#undef X86

#if FASTGRU_DOUBLE
#define real double
#define lane int64_t
#define ulane uint64_t
#define REAL_C(x) x
#define MANTISSA 52
#define EXPONENT_BIAS 1023
#define REAL_MAX DBL_MAX
#else
#define real float
#define lane int32_t
#define ulane uint32_t
#define REAL_C(x) x##f
#define MANTISSA 23
#define EXPONENT_BIAS 127
#define REAL_MAX FLT_MAX
#endif


#if FASTGRU_SCALAR
#define VLEN 1
typedef real vreal;
typedef lane vint;
typedef ulane vuint;
#else
#define VLEN ((int)(FASTGRU_VBYTES / sizeof(real)))
typedef real vreal __attribute__((vector_size(FASTGRU_VBYTES)));
typedef lane vint __attribute__((vector_size(FASTGRU_VBYTES)));
typedef ulane vuint __attribute__((vector_size(FASTGRU_VBYTES)));
#endif

/* ---- bits ------------------------------------------------------------------------ */

FASTGRU_INLINE vint vbits(vreal x)
{
    vint i;
    memcpy(&i, &x, sizeof x);
    return i;
}

FASTGRU_INLINE vreal vfrom_bits(vint i)
{
    vreal x;
    memcpy(&x, &i, sizeof x);
    return x;
}

FASTGRU_INLINE vreal vset(real x)
{
#if FASTGRU_SCALAR
    return x;
#else
    return x - (vreal){0};  /* x - 0 and not 0 + x, which would turn -0 into +0 */
#endif
}

/* ---- memory ---------------------------------------------------------------------- */

/* The lanes below n, for instructions that leave the others, and what they point to, alone. */
#if FASTGRU_VBYTES == 64
#define LANES_BELOW(n) ((1u << (n)) - 1)
#elif FASTGRU_VBYTES == 32 && FASTGRU_DOUBLE
#define LANES_BELOW(n) ((__m256i)((vint){0, 1, 2, 3} < (lane)(n)))
#elif FASTGRU_VBYTES == 32
#define LANES_BELOW(n) ((__m256i)((vint){0, 1, 2, 3, 4, 5, 6, 7} < (lane)(n)))
#endif

/* The first n <= VLEN reals at p; the lanes behind them are zero. */
FASTGRU_INLINE vreal vload(const real *p, int n)
{
    vreal x;
    if (n == VLEN) {
        memcpy(&x, p, sizeof x);
        return x;
    }
#if FASTGRU_VBYTES == 64 && FASTGRU_DOUBLE
    return (vreal)_mm512_maskz_loadu_pd((__mmask8)LANES_BELOW(n), p);
#elif FASTGRU_VBYTES == 64
    return (vreal)_mm512_maskz_loadu_ps((__mmask16)LANES_BELOW(n), p);
#elif FASTGRU_VBYTES == 32 && FASTGRU_DOUBLE
    return (vreal)_mm256_maskload_pd(p, LANES_BELOW(n));
#elif FASTGRU_VBYTES == 32
    return (vreal)_mm256_maskload_ps(p, LANES_BELOW(n));
#else
    memset(&x, 0, sizeof x);
    for (int i = 0; i < n; ++i)
        ((real *)&x)[i] = p[i];
    return x;
#endif
}

/* x into the first n <= VLEN reals at p. */
FASTGRU_INLINE void vstore(real *p, vreal x, int n)
{
    if (n == VLEN) {
        memcpy(p, &x, sizeof x);
        return;
    }
#if FASTGRU_VBYTES == 64 && FASTGRU_DOUBLE
    _mm512_mask_storeu_pd(p, (__mmask8)LANES_BELOW(n), (__m512d)x);
#elif FASTGRU_VBYTES == 64
    _mm512_mask_storeu_ps(p, (__mmask16)LANES_BELOW(n), (__m512)x);
#elif FASTGRU_VBYTES == 32 && FASTGRU_DOUBLE
    _mm256_maskstore_pd(p, LANES_BELOW(n), (__m256d)x);
#elif FASTGRU_VBYTES == 32
    _mm256_maskstore_ps(p, LANES_BELOW(n), (__m256)x);
#else
    for (int i = 0; i < n; ++i)
        p[i] = ((const real *)&x)[i];
#endif
}

#if FASTGRU_HALF && !FASTGRU_DOUBLE
/* VLEN float16, exactly. */
FASTGRU_INLINE vreal vload_half(const uint16_t *p)
{
#if defined(__aarch64__)
    return (vreal)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#elif FASTGRU_VBYTES == 64
    return (vreal)_mm512_maskz_cvtph_ps((__mmask16)-1, _mm256_loadu_si256((const __m256i *)p));
#else
    return (vreal)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#endif
}

/* The nearest float16, ties to even. */
FASTGRU_INLINE uint16_t to_half(real x)
{
#if defined(__aarch64__)
    return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(x))), 0);
#else
    return (uint16_t)_cvtss_sh(x, 0);
#endif
}
#endif

/* ---- comparison and choice ------------------------------------------------------- */

FASTGRU_INLINE vint vless(vreal a, vreal b)
{
#if FASTGRU_SCALAR
    return -(lane)(a < b);
#else
    return (vint)(a < b);
#endif
}

/* mask ? a : b, lane by lane */
FASTGRU_INLINE vreal vselect(vint mask, vreal a, vreal b)
{
    return vfrom_bits((mask & vbits(a)) | (~mask & vbits(b)));
}

/* max(x, low) and min(x, high); a NaN in x stays, as in Keras, and so does a zero of either sign. On x86 that
 * is what the instructions do, which return their second operand unless the first is really beyond it. */
#if FASTGRU_VBYTES == 64 && FASTGRU_DOUBLE
#define X86(name, a, b) (vreal)_mm512_maskz_##name##_pd((__mmask8)-1, (__m512d)(a), (__m512d)(b))
#elif FASTGRU_VBYTES == 64
#define X86(name, a, b) (vreal)_mm512_maskz_##name##_ps((__mmask16)-1, (__m512)(a), (__m512)(b))
#elif FASTGRU_VBYTES == 32 && FASTGRU_DOUBLE
#define X86(name, a, b) (vreal)_mm256_##name##_pd((__m256d)(a), (__m256d)(b))
#elif FASTGRU_VBYTES == 32
#define X86(name, a, b) (vreal)_mm256_##name##_ps((__m256)(a), (__m256)(b))
#elif FASTGRU_DOUBLE
#define X86(name, a, b) (vreal)_mm_##name##_pd((__m128d)(a), (__m128d)(b))
#else
#define X86(name, a, b) (vreal)_mm_##name##_ps((__m128)(a), (__m128)(b))
#endif

FASTGRU_INLINE vreal vat_least(vreal x, real low)
{
#ifdef FASTGRU_X86
    return X86(max, vset(low), x);
#else
    return vselect(vless(x, vset(low)), vset(low), x);
#endif
}

FASTGRU_INLINE vreal vat_most(vreal x, real high)
{
#ifdef FASTGRU_X86
    return X86(min, vset(high), x);
#else
    return vselect(vless(vset(high), x), vset(high), x);
#endif
}

FASTGRU_INLINE vreal vabs(vreal x)
{
    const vint sign = vbits(vset(REAL_C(-0.0)));
    return vfrom_bits(vbits(x) & ~sign);
}

FASTGRU_INLINE vreal vcopysign(vreal size, vreal sign)
{
    const vint bit = vbits(vset(REAL_C(-0.0)));
    return vfrom_bits((vbits(size) & ~bit) | (vbits(sign) & bit));
}

/* ---- arithmetic ------------------------------------------------------------------ */

/* a * b + c: rounded once with FASTGRU_FMA, twice without. */
FASTGRU_INLINE vreal vfma(vreal a, vreal b, vreal c)
{
#if !FASTGRU_FMA
    return a * b + c;
#elif defined(__aarch64__) && FASTGRU_DOUBLE
    return (vreal)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#elif defined(__aarch64__)
    return (vreal)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif FASTGRU_VBYTES == 64 && FASTGRU_DOUBLE
    return (vreal)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif FASTGRU_VBYTES == 64
    return (vreal)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif FASTGRU_DOUBLE
    return (vreal)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    return (vreal)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#endif
}

/* a * b - product, where product is a * b rounded: what the rounding lost, exactly.
 * Without an FMA by splitting both factors (Dekker, Numer. Math. 18, 1971); |a|, |b| < 2**60. */
FASTGRU_INLINE vreal vproduct_error(vreal a, vreal b, vreal product)
{
#if FASTGRU_FMA
    return vfma(a, b, -product);
#else
    const real split = (real)(((lane)1 << (MANTISSA / 2 + 1)) + 1);
    const vreal a_split = a * split, b_split = b * split;
    const vreal a_high = a_split - (a_split - a), a_low = a - a_high;
    const vreal b_high = b_split - (b_split - b), b_low = b - b_high;
    return (((a_high * b_high - product) + a_high * b_low) + a_low * b_high) + a_low * b_low;
#endif
}

/* Nearest integer of x * factor, below 2**(MANTISSA - 1), as a real and as an integer:
 * 1.5 * 2**MANTISSA pushes the fraction out of the mantissa. */
FASTGRU_INLINE vreal vnearest(vreal x, real factor, vint *n)
{
    const vreal push = vset((real)(3 * ((lane)1 << (MANTISSA - 1))));
    const vreal pushed = vfma(x, vset(factor), push);
    *n = vbits(pushed) - vbits(push);
    return pushed - push;
}

/* 2**n for the exponents of normal numbers; of any other, and that is what a NaN leads to, some number. */
FASTGRU_INLINE vreal vexp2i(vint n)
{
    return vfrom_bits((vint)((vuint)(n + EXPONENT_BIAS) << MANTISSA));
}

/* c[0] + c[1] x + ... + c[degree] x**degree by Horner's rule; degree is a constant. */
FASTGRU_INLINE vreal vpolynomial(vreal x, const real *c, int degree)
{
    vreal p = vset(c[degree]);
    for (int i = degree - 1; i >= 0; --i)
        p = vfma(p, x, vset(c[i]));
    return p;
}
