/* dot_neon.h - groups of four int8 weights by widening them: a part is the sums of half of the units, two each. */

#define DOT_PARTS 2
#define DOT_BY_ROW 0
#define DOT_KIND "w"
#define DOT_TYPE int16x8_t

INLINE int16x8_t FORMAT(weights_of)(const char *p, int part)
{
    return vmovl_s8(vld1_s8((const int8_t *)p + 8 * part));
}

INLINE int16x8_t FORMAT(factors_of)(const char *q, int part)
{
    uint64_t four;
    (void)part;
    memcpy(&four, q, sizeof four);
    return vreinterpretq_s16_u64(vdupq_n_u64(four));
}

INLINE vint FORMAT(dot)(vint sums, int16x8_t w, int16x8_t x)
{
    const int32x4_t low = vmull_s16(vget_low_s16(w), vget_low_s16(x)), high = vmull_high_s16(w, x);
    return (vint)vaddq_s32((int32x4_t)sums, vpaddq_s32(low, high));
}

INLINE vint FORMAT(total)(const vint *sums, vint offset)
{
    (void)offset;
    return (vint)vpaddq_s32((int32x4_t)sums[0], (int32x4_t)sums[1]);
}

#include "dot_int16.h"
