/* product_int8.h - int8 weights times few rows of 16-bit factors: exact sums of integers.
 *
 * A weight is an integer from -128 to 127 times a scale of its column; a row of factors is integers times a power of
 * two of its own. Products of these are summed in int32, exactly, in whichever order; a float32 sum is
 *
 *     sum_k q_k w_k * (2^e * scale)
 *
 * with one rounding for the conversion of the sum, one for the scales and one for their product. So its bits depend on
 * neither tile nor instruction set.
 *
 * For each group of four k, and of each the gates side by side, there are four weights of each unit. What multiplies a
 * group is in a vocabulary (dot_avx2.h and the others):
 *
 *     DOT_PARTS                  sums of a vector of units: 2 or 1
 *     DOT_BY_ROW                 1 where a row's factors are kept in a register for all gates, 0 where weights are for
 *                                all rows: one more register
 *     DOT_KIND                   the kind of a register of weights, as inline assembly names it
 *     DOT_TYPE                   the type of weights and factors
 *     weights_of(p, part)        the weights at p, (VLEN, 4)
 *     factors_of(q, part)        the factors of a group in all lanes
 *     dot(sums, w, x)            sums + the products of both
 *     total(sums, offset)        the integer that all parts make up, for each unit
 *     arrange_factors(q, count)  int16 factors, a multiple of 8, are put as factors_of reads them
 *     arranged_factor(q, k)      the factor of one k */

#define EACH(i, count) UNROLL for (int i = 0; i < (count); ++i)

#include DOT

#undef EACH_TILE
#undef TILE_ROWS
#undef TILE_PANELS
#undef TILE_NEXT

/* Where weights are widened there are registers for three rows, else for four: sums, a row's factors, weights. */
#if REGISTERS == 32 || DOT_BY_ROW
#define EACH_TILE(X, what) X(what, 1, 1) X(what, 2, 1) X(what, 3, 1) X(what, 4, 1)
#define TILE_ROWS 4
#define TILE_NEXT(left) ((left) <= 4 ? (left) : (left) == 5 ? 3 : 4)
#else
#define EACH_TILE(X, what) X(what, 1, 1) X(what, 2, 1) X(what, 3, 1)
#define TILE_ROWS 3
#define TILE_NEXT(left) ((left) <= 3 ? (left) : (left) == 4 ? 2 : 3)
#endif
#define TILE_PANELS(rows) 1
#define TOGETHER(rows, gates) ((rows) * (gates) * DOT_PARTS + (DOT_BY_ROW ? 1 : (rows)) < REGISTERS - 1)

/* The vectors of a tile by row, of each its gates. */
typedef vreal FORMAT(sums)[TILE_ROWS * 3];

enum { FORMAT(INFINITE) = 0x7f800000 };  /* the bits of infinity                           */

/* ---- factors ------------------------------------------------------------------------------- */

/* A row of factors: its scale, three unused, then the integers, arranged. x is 2^e q, |q| at most `limit`, rounded to
 * nearest even, e as small as can be. Of a row with a NaN the scale is NaN; of one with an infinity it is infinite, and
 * q the sign of infinite elements, else zero. */
static void FORMAT(quantize)(
    real *to,                        /* (fastgru_quantized_width(n))  overwritten          */
    const real *x,                   /* (n)                                                */
    ptrdiff_t n, real limit)
{
    char *q = (char *)(to + FASTGRU_QUANTIZED_HEAD);
    int16_t *integers = (int16_t *)(void *)q;
    const ptrdiff_t count = (n + 7) / 8 * 8;
    vint most = vbits(vset(0));
    int32_t top = 0, bits;
    const real least = (real)7.888609e-31;  /* so that the scale is a normal number       */
    real factor;
    for (ptrdiff_t k = 0; k < n; k += VLEN) {  /* the bits of sizes are in their order, NaN behind infinity */
        const vint size = vbits(vabs(vload(x + k, n - k < VLEN ? (int)(n - k) : VLEN)));
        const vint larger = vint_less(most, size);
        most = (size & larger) | (most & ~larger);
    }
    for (int i = 0; i < VLEN; ++i)
        top = vlane(most, i) > top ? vlane(most, i) : top;
    if (top >= FORMAT(INFINITE)) {
        for (ptrdiff_t k = 0; k < count; ++k)
            integers[k] = k < n && top == FORMAT(INFINITE) ? (int16_t)((x[k] > FLT_MAX) - (x[k] < -FLT_MAX)) : 0;
        memcpy(to, &top, sizeof top);
    } else {
        real size;
        memcpy(&size, &top, sizeof size);
        factor = limit / (size > least ? size : least);
        memcpy(&bits, &factor, sizeof bits);
        bits &= FORMAT(INFINITE);    /* the power of two */
        memcpy(&factor, &bits, sizeof factor);
        to[0] = 1 / factor;
        vint nearest;
        ptrdiff_t k = 0;
        for (; k + VLEN <= n; k += VLEN) {
            vnearest(vload(x + k, VLEN), factor, &nearest);
            vstore_int16(integers + k, nearest);
        }
        vnearest(vload(x + k, (int)(n - k)), factor, &nearest);
        for (int i = 0; k < count; ++k, ++i)
            integers[k] = k < n ? (int16_t)vlane(nearest, i) : 0;
    }
    FORMAT(arrange_factors)(q, count);
}

/* The sums of a row with infinities: NaN where those of both signs meet, or a weight is zero. */
OUTLINE void FORMAT(infinite)(
    int gates,
    vreal *sums,                     /* (3)  overwritten, the first gates                  */
    ptrdiff_t n,
    const char *q,                   /* (n)  arranged                                      */
    const char *w)                   /* (n / 4, gates, VLEN, 4)                            */
{
    for (int gate = 0; gate < gates; ++gate) {
        real lanes[VLEN];
        for (int i = 0; i < VLEN; ++i) {
            lanes[i] = 0;
            for (ptrdiff_t k = 0; k < n; ++k) {
                const int sign = FORMAT(arranged_factor)(q, k);
                const signed char integer = (signed char)w[((k / 4 * gates + gate) * VLEN + i) * 4 + k % 4];
                if (sign)
                    lanes[i] += (real)(sign * integer) * (real)INFINITY;
            }
        }
        memcpy(sums + gate, lanes, sizeof *sums);
    }
}

/* ---- tiles --------------------------------------------------------------------------------- */

/* totals := the integer sums of the parts from `first` to before `end`. */
INLINE void FORMAT(groups)(
    int rows, int gates, int first, int end,
    vint *totals,                    /* (rows, gates, DOT_PARTS)  overwritten              */
    ptrdiff_t groups,
    const real *a,                   /* (rows)  factors                                    */
    ptrdiff_t a_stride,
    const char *w)                   /* (groups, gates, VLEN, 4)                           */
{
    vint sums[TILE_ROWS * 3 * 2];
    const char *q = (const char *)(a + FASTGRU_QUANTIZED_HEAD);
    for (int i = 0; i < rows * gates * DOT_PARTS; ++i)
        sums[i] = vbits(vset(0));
    for (ptrdiff_t group = 0; group < groups; ++group, q += 8, w += gates * 4 * VLEN)
        UNROLL for (int part = first; part < end; ++part)
            UNROLL_TILE for (int i = 0; i < rows * gates; ++i) {
                const int row = DOT_BY_ROW ? i / gates : i % rows, g = DOT_BY_ROW ? i % gates : i / rows;
                vint *sum = sums + (row * gates + g) * DOT_PARTS + part;
                *sum = FORMAT(dot)(*sum, FORMAT(weights_of)(w + g * 4 * VLEN, part),
                                   FORMAT(factors_of)(q + row * a_stride * (ptrdiff_t)sizeof *a, part));
            }
    for (int i = 0; i < rows * gates; ++i)
        for (int part = first; part < end; ++part)
            totals[i * DOT_PARTS + part] = sums[i * DOT_PARTS + part];
}

typedef void (*FORMAT(product))(
    vreal *sums,                     /* (rows, panels, 3)  overwritten                     */
    ptrdiff_t n,
    const real *a,                   /* (rows)  factors                                    */
    ptrdiff_t a_stride,
    const char *w,                   /* (panels, ...) packed weights                       */
    size_t panel_bytes, int fetch);

/* sums := a.W, (rows, 3) vectors of which the first gates are set. */
INLINE void FORMAT(sum_up)(
    int rows, int gates, vreal *sums, ptrdiff_t n, const real *a, ptrdiff_t a_stride, const char *w)
{
    const ptrdiff_t groups = (n + 3) / 4;
    const real *scales = (const real *)(const void *)(w + groups * gates * 4 * VLEN);
    const int32_t *offsets = (const int32_t *)(const void *)(scales + gates * VLEN);
    vint totals[TILE_ROWS * 3 * 2];
    if (TOGETHER(rows, gates)) {
        FORMAT(groups)(rows, gates, 0, DOT_PARTS, totals, groups, a, a_stride, w);
    } else {  /* there is room for the sums of one part alone */
        FORMAT(groups)(rows, gates, 0, 1, totals, groups, a, a_stride, w);
        BARRIER;
        FORMAT(groups)(rows, gates, DOT_PARTS - 1, DOT_PARTS, totals, groups, a, a_stride, w);
    }
    EACH(row, rows) {
        const real scale = a[row * a_stride];
        EACH(g, gates) {
            vint offset;
            memcpy(&offset, offsets + g * VLEN, sizeof offset);
            sums[row * 3 + g] = vreals(FORMAT(total)(totals + (row * gates + g) * DOT_PARTS, offset))
                * (vload(scales + g * VLEN, VLEN) * vset(scale));
        }
        if (scale > FLT_MAX)
            FORMAT(infinite)(gates, sums + row * 3, n, (const char *)(a + row * a_stride + FASTGRU_QUANTIZED_HEAD), w);
    }
}

#define DEFINE(gates, rows, panels)                                                                        \
    OUTLINE void FORMAT(product_##gates##_##rows##x##panels)(                                              \
        vreal *sums, ptrdiff_t n, const real *a, ptrdiff_t a_stride, const char *w, size_t panel_bytes,    \
        int fetch)                                                                                         \
    {                                                                                                      \
        (void)panel_bytes, (void)fetch;                                                                    \
        FORMAT(sum_up)(rows, gates, sums, n, a, a_stride, w);                                              \
    }
#define PLACE(gates, rows, panels) \
    [gates - 1][rows - 1][panels - 1] = FORMAT(product_##gates##_##rows##x##panels),

EACH_TILE(OF_ONE_PANEL, (DEFINE, 1))
EACH_TILE(DEFINE, 2)
EACH_TILE(DEFINE, 3)
static const FORMAT(product) FORMAT(products)[3][TILE_ROWS][4] = {
    EACH_TILE(OF_ONE_PANEL, (PLACE, 1)) EACH_TILE(PLACE, 2) EACH_TILE(PLACE, 3)};

/* ---- what a core can do (roofline.h) --------------------------------------------------------- */

#define DECLARE_SUM(i) vint a##i = vbits(vset(0));
#define ADD_PRODUCTS(i) CHANGED(w, DOT_KIND); a##i = FORMAT(dot)(a##i, w, x);
#define PLUS_SUM(i) + vlane(a##i, 0)

/* The products of groups of four with FASTGRU_CHAINS vectors of units, all in registers, repeatedly. */
static float FORMAT(multiply_adds)(ptrdiff_t times)
{
    static const char none[4 * VLEN > 8 ? 4 * VLEN : 8];
    DOT_TYPE w = FORMAT(weights_of)(none, 0);
    DOT_TYPE x = FORMAT(factors_of)(none, 0);
    CHANGED(x, DOT_KIND);
    EACH_CHAIN(DECLARE_SUM)
    for (ptrdiff_t time = 0; time < times; ++time) {
        UNROLL for (int part = 0; part < DOT_PARTS; ++part) {
            EACH_CHAIN(ADD_PRODUCTS)
        }
    }
    return (float)(0 EACH_CHAIN(PLUS_SUM));
}

#undef DECLARE_SUM
#undef ADD_PRODUCTS
#undef PLUS_SUM
#undef DEFINE
#undef PLACE
#undef TOGETHER
#undef DOT_PARTS
#undef DOT_BY_ROW
#undef DOT_KIND
#undef DOT_TYPE
