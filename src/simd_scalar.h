/* simd_scalar.h - no instruction set in particular: one lane, or what the compiler makes of its own vectors. */

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

INLINE vreal vfma(vreal a, vreal b, vreal c)
{
    return a * b + c;
}
