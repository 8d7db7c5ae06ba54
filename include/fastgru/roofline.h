/* roofline.h - the loops that show what one core can do at best: multiply-adds alone, reading alone.
 *
 * Included by kernels.h after simd.h, for float32. They return a sum, so that no compiler leaves the work
 * out; whoever calls them takes the time. */

/* a statement for each of the accumulators, which must stay in registers */
#define FASTGRU_EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define FASTGRU_DECLARE(i) vreal a##i = vset(i);
#define FASTGRU_MULTIPLY_ADD(i) a##i = vfma(a##i, factor, term);
#define FASTGRU_ADD(i) a##i += vload(p + (i) * VLEN, VLEN);
#define FASTGRU_SUM(i) + a##i

/* a = a * 0.999 + 0.001 for FASTGRU_CHAINS vectors, so many times: 2 operations a number. */
static float KERNEL(multiply_adds)(ptrdiff_t turns)
{
    const vreal factor = vset(0.999f), term = vset(0.001f);
    FASTGRU_EACH(FASTGRU_DECLARE)
    for (ptrdiff_t turn = 0; turn < turns; ++turn) {
        FASTGRU_EACH(FASTGRU_MULTIPLY_ADD)
        FASTGRU_BARRIER;
    }
    const vreal sum = FASTGRU_EACH(FASTGRU_SUM);
    real lanes[VLEN];
    vstore(lanes, sum, VLEN);
    return lanes[0];
}

/* Read all of the memory, so many times. */
static float KERNEL(reads)(
    const float *memory,             /* (blocks, FASTGRU_CHAINS, VLEN) */
    ptrdiff_t blocks, ptrdiff_t turns)
{
    FASTGRU_EACH(FASTGRU_DECLARE)
    for (ptrdiff_t turn = 0; turn < turns; ++turn) {
        const float *p = memory;
        for (ptrdiff_t block = 0; block < blocks; ++block, p += FASTGRU_CHAINS * VLEN) {
            FASTGRU_EACH(FASTGRU_ADD)
        }
        FASTGRU_BARRIER;
    }
    const vreal sum = FASTGRU_EACH(FASTGRU_SUM);
    real lanes[VLEN];
    vstore(lanes, sum, VLEN);
    return lanes[0];
}

#undef FASTGRU_EACH
#undef FASTGRU_DECLARE
#undef FASTGRU_MULTIPLY_ADD
#undef FASTGRU_ADD
#undef FASTGRU_SUM
