/* dot_neondot.h - groups of four int8 weights by four signed bytes (SDOT): a factor q is 256 high + low, both signed,
 * and a part is the sums of the low or of the high bytes of a group. */

#define DOT_PARTS 2
#define DOT_BY_ROW 1
#define DOT_KIND "w"
#define DOT_TYPE int8x16_t

INLINE int8x16_t FORMAT(weights_of)(const char *p, int part)
{
    (void)part;
    return vld1q_s8((const int8_t *)p);
}

INLINE int8x16_t FORMAT(factors_of)(const char *q, int part)
{
    uint32_t four;
    memcpy(&four, q + 4 * part, sizeof four);
    return vreinterpretq_s8_u32(vdupq_n_u32(four));
}

INLINE vint FORMAT(dot)(vint sums, int8x16_t w, int8x16_t x)
{
    return (vint)vdotq_s32((int32x4_t)sums, w, x);
}

INLINE vint FORMAT(total)(const vint *sums, vint offset)
{
    (void)offset;
    return (vint)(((vuint)sums[1] << 8) + (vuint)sums[0]);
}

/* Of each group the low bytes, then the high ones. */
INLINE void FORMAT(arrange_factors)(char *q, ptrdiff_t count)
{
    for (ptrdiff_t k = 0; k < count; k += 4) {
        int16_t integers[4];
        int8_t bytes[8];
        memcpy(integers, q + 2 * k, sizeof integers);
        for (int i = 0; i < 4; ++i) {
            bytes[i] = (int8_t)(integers[i] & 0xff);
            bytes[4 + i] = (int8_t)((integers[i] - bytes[i]) / 256);
        }
        memcpy(q + 2 * k, bytes, sizeof bytes);
    }
}

INLINE int FORMAT(arranged_factor)(const char *q, ptrdiff_t k)
{
    const signed char *group = (const signed char *)q + k / 4 * 8 + k % 4;
    return 256 * group[4] + group[0];
}
