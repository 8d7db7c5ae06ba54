/* simd.h - vectors: vreal is VLEN reals, vint VLEN integers as wide, and a mask a vint whose lanes are all ones or all
 * zeros.
 *
 * The file of an instruction set (simd_avx2.h and others, included after this) defines the operations that are its
 * own; the rest is here, the same for all. If VBYTES is 0, a vector is one lane. All operations are exact or correctly
 * rounded, so a kernel differs between instruction sets only where it asks for FUSED. */

/* One name for all inclusions: KERNEL adds the dtype and the instruction set. */
#ifndef vreal
#define vreal KERNEL(vreal)
#define vint KERNEL(vint)
#define vuint KERNEL(vuint)
#define vbits KERNEL(vbits)
#define vfrom_bits KERNEL(vfrom_bits)
#define vset KERNEL(vset)
#define vload KERNEL(vload)
#define vload_part KERNEL(vload_part)
#define vload_lanes KERNEL(vload_lanes)
#define vstore KERNEL(vstore)
#define vstore_part KERNEL(vstore_part)
#define vstore_lanes KERNEL(vstore_lanes)
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
#define vlane KERNEL(vlane)
#define vint_less KERNEL(vint_less)
#define vreals KERNEL(vreals)
#define vstore_int16 KERNEL(vstore_int16)
#endif

#undef real
#undef lane
#undef ulane
#undef REAL_C
#undef REAL_MAX
#undef MANTISSA
#undef EXPONENT_BIAS
#undef VLEN

#if DOUBLE
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

#if VBYTES
#define VLEN ((int)(VBYTES / sizeof(real)))
typedef real vreal __attribute__((vector_size(VBYTES)));
typedef lane vint __attribute__((vector_size(VBYTES)));
typedef ulane vuint __attribute__((vector_size(VBYTES)));
#else
#define VLEN 1
typedef real vreal;
typedef lane vint;
typedef ulane vuint;
#endif

/* ---- what the file of an instruction set defines ---------------------------------------- */

/* The first n < VLEN reals at p, zeros in the lanes behind them; and x into them. Nothing behind them is touched. */
INLINE vreal vload_part(const real *p, int n);
INLINE void vstore_part(real *p, vreal x, int n);

/* max(x, low) and min(x, high); a NaN in x stays, as in Keras, and so does a zero of either sign. */
INLINE vreal vat_least(vreal x, real low);
INLINE vreal vat_most(vreal x, real high);

/* a * b + c: rounded once with FUSED, twice without. */
INLINE vreal vfma(vreal a, vreal b, vreal c);

#if HALF && !DOUBLE
INLINE vreal vload_half(const uint16_t *p);  /* VLEN float16, exactly          */
INLINE uint16_t to_half(real x);             /* the nearest float16, ties to even */
#endif

/* ---- bits ------------------------------------------------------------------------------- */

INLINE vint vbits(vreal x)
{
    vint i;
    memcpy(&i, &x, sizeof x);
    return i;
}

INLINE vreal vfrom_bits(vint i)
{
    vreal x;
    memcpy(&x, &i, sizeof x);
    return x;
}

INLINE vreal vset(real x)
{
#if VBYTES
    return x - (vreal){0};  /* x - 0 and not 0 + x, which would turn -0 into +0 */
#else
    return x;
#endif
}

/* ---- memory ----------------------------------------------------------------------------- */

/* The first n <= VLEN reals at p; the lanes behind them are zero. */
INLINE vreal vload(const real *p, int n)
{
    vreal x;
    if (n < VLEN)
        return vload_part(p, n);
    memcpy(&x, p, sizeof x);
    return x;
}

/* x into the first n <= VLEN reals at p. */
INLINE void vstore(real *p, vreal x, int n)
{
    if (n < VLEN)
        vstore_part(p, x, n);
    else
        memcpy(p, &x, sizeof x);
}

/* vload_part and vstore_part of an instruction set without masked loads and stores. */
INLINE vreal vload_lanes(const real *p, int n)
{
    vreal x;
    real lanes[VLEN] = {0};
    for (int i = 0; i < n; ++i)
        lanes[i] = p[i];
    memcpy(&x, lanes, sizeof x);
    return x;
}

INLINE void vstore_lanes(real *p, vreal x, int n)
{
    real lanes[VLEN];
    memcpy(lanes, &x, sizeof x);
    for (int i = 0; i < n; ++i)
        p[i] = lanes[i];
}

/* ---- comparison and choice -------------------------------------------------------------- */

INLINE vint vless(vreal a, vreal b)
{
#if VBYTES
    return (vint)(a < b);
#else
    return -(lane)(a < b);
#endif
}

INLINE vint vint_less(vint a, vint b)
{
#if VBYTES
    return (vint)(a < b);
#else
    return -(lane)(a < b);
#endif
}

/* mask ? a : b, lane by lane */
INLINE vreal vselect(vint mask, vreal a, vreal b)
{
    return vfrom_bits((mask & vbits(a)) | (~mask & vbits(b)));
}

INLINE vreal vabs(vreal x)
{
    const vint sign = vbits(vset(REAL_C(-0.0)));
    return vfrom_bits(vbits(x) & ~sign);
}

INLINE vreal vcopysign(vreal size, vreal sign)
{
    const vint bit = vbits(vset(REAL_C(-0.0)));
    return vfrom_bits((vbits(size) & ~bit) | (vbits(sign) & bit));
}

/* x, which int16 can hold, into VLEN of them at p. */
INLINE void vstore_int16(int16_t *p, vint x)
{
#if VBYTES
    typedef int16_t vint16 __attribute__((vector_size(2 * VLEN)));
    const vint16 narrow = __builtin_convertvector(x, vint16);
    memcpy(p, &narrow, sizeof narrow);
#else
    *p = (int16_t)x;
#endif
}

INLINE lane vlane(vint x, int i)
{
    lane lanes[VLEN];
    memcpy(lanes, &x, sizeof x);
    return lanes[i];
}

/* ---- arithmetic ------------------------------------------------------------------------- */

/* a * b - product, where product is a * b rounded: what the rounding lost, exactly.
 * Without an FMA by splitting both factors (Dekker, Numer. Math. 18, 1971); |a|, |b| < 2**60. */
INLINE vreal vproduct_error(vreal a, vreal b, vreal product)
{
#if FUSED
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
INLINE vreal vnearest(vreal x, real factor, vint *n)
{
    const vreal push = vset((real)(3 * ((lane)1 << (MANTISSA - 1))));
    const vreal pushed = vfma(x, vset(factor), push);
    *n = vbits(pushed) - vbits(push);
    return pushed - push;
}

/* The nearest real of every lane. */
INLINE vreal vreals(vint x)
{
#if VBYTES
    return __builtin_convertvector(x, vreal);
#else
    return (vreal)x;
#endif
}

/* 2**n for the exponents of normal numbers; for any other n, which a NaN leads to, it is unspecified. */
INLINE vreal vexp2i(vint n)
{
    return vfrom_bits((vint)((vuint)(n + EXPONENT_BIAS) << MANTISSA));
}

/* c[0] + c[1] x + ... + c[degree] x**degree by Horner's rule; degree is a constant. */
INLINE vreal vpolynomial(
    vreal x,
    const real *c,                   /* (degree + 1)                                       */
    int degree)
{
    vreal p = vset(c[degree]);
    for (int i = degree - 1; i >= 0; --i)
        p = vfma(p, x, vset(c[i]));
    return p;
}
