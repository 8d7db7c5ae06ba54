/* dot_scalar.h - groups of four int8 weights one by one. */

#define DOT_PARTS 1
#define DOT_BY_ROW 0
#define DOT_KIND "r"
#define DOT_TYPE const char *

INLINE const char *FORMAT(weights_of)(const char *p, int part)
{
    (void)part;
    return p;
}

INLINE const char *FORMAT(factors_of)(const char *q, int part)
{
    (void)part;
    return q;
}

INLINE vint FORMAT(dot)(vint sums, const char *w, const char *x)
{
    int16_t q[4];
    int32_t lanes[VLEN];
    memcpy(q, x, sizeof q);
    memcpy(lanes, &sums, sizeof lanes);
    for (int i = 0; i < VLEN; ++i)
        for (int k = 0; k < 4; ++k)
            lanes[i] += q[k] * (signed char)w[i * 4 + k];
    memcpy(&sums, lanes, sizeof lanes);
    return sums;
}

INLINE vint FORMAT(total)(const vint *sums, vint offset)
{
    (void)offset;
    return sums[0];
}

#include "dot_int16.h"
