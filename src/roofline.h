/* roofline.h - the loops that show what one core can do at best: multiply-adds alone, reading alone.
 *
 * For float32. They return a sum, so that no compiler leaves the work out. */

/* a statement for each of the accumulators, which must stay in registers */
#define EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define DECLARE(i) vreal a##i = vset(i);
#define MULTIPLY_ADD(i) a##i = vfma(a##i, factor, term);
#define ADD(i) a##i += vload(p + (i) * VLEN, VLEN);
#define PLUS(i) + a##i

/* a = a * 0.999 + 0.001 for FASTGRU_CHAINS vectors, repeatedly: 2 operations a number. */
static float KERNEL(multiply_adds)(ptrdiff_t times)
{
    const vreal factor = vset(0.999f), term = vset(0.001f);
    EACH_CHAIN(DECLARE)
    for (ptrdiff_t time = 0; time < times; ++time) {
        EACH_CHAIN(MULTIPLY_ADD)
        BARRIER;
    }
    const vreal sum = EACH_CHAIN(PLUS);
    real lanes[VLEN];
    vstore(lanes, sum, VLEN);
    return lanes[0];
}

/* Read all of the memory, repeatedly. */
static float KERNEL(reads)(
    const float *memory,             /* (blocks, FASTGRU_CHAINS, VLEN)                     */
    ptrdiff_t blocks, ptrdiff_t times)
{
    EACH_CHAIN(DECLARE)
    for (ptrdiff_t time = 0; time < times; ++time) {
        const float *p = memory;
        for (ptrdiff_t block = 0; block < blocks; ++block, p += FASTGRU_CHAINS * VLEN) {
            EACH_CHAIN(ADD)
        }
        BARRIER;
    }
    const vreal sum = EACH_CHAIN(PLUS);
    real lanes[VLEN];
    vstore(lanes, sum, VLEN);
    return lanes[0];
}
