/* product.h - packed weights times few rows: the only code that has instances by size.
 *
 * A tile is a few rows times a few panels, whose sums are in registers. What is added to what, in which order, does not
 * depend on the tile, hence no bit does: a product is a chain of multiply-adds over each half of k, and the sum of both,
 * so that each chain rounds at the size of its own sum. The median error that tests/engine/test_accuracy.py prints was 1.00
 * with halves, as x.kernel and h.recurrent_kernel are added at their ends, and 1.22 with h going on from x and x from
 * the bias. */

#define EACH(i, count) UNROLL for (int i = 0; i < (count); ++i)

#ifndef TILE_ROWS

/* The most rows of a tile, and the most panels next to this many rows: 12 sums in 16 registers, 24 in 32. */
#define TILE_ROWS (REGISTERS / 4)
#define TILE_PANELS(rows) (TILE_ROWS / (rows) < 4 ? TILE_ROWS / (rows) : 4)

/* X(what, rows, panels) for every size; and its place in a table of instances. */
#if REGISTERS == 32
#define EACH_TILE(X, what) \
    X(what, 1, 1) X(what, 1, 2) X(what, 1, 3) X(what, 1, 4) X(what, 2, 1) X(what, 2, 2) \
    X(what, 2, 3) X(what, 2, 4) X(what, 4, 1) X(what, 4, 2) X(what, 8, 1)
#else
#define EACH_TILE(X, what) \
    X(what, 1, 1) X(what, 1, 2) X(what, 1, 3) X(what, 1, 4) X(what, 2, 1) X(what, 2, 2) X(what, 4, 1)
#endif
#define TILE_SIZES (REGISTERS == 32 ? 4 : 3)
#define TILE_SIZE(rows) ((rows) == 8 ? 3 : (rows) / 2)  /* the logarithm */

#endif

/* The vectors of a tile by row and panel, of each its gates. */
typedef vreal FORMAT(sums)[TILE_ROWS * 3];

/* sums += a.W of one k. */
INLINE void FORMAT(link)(
    int rows, int panels, int gates,
    int fetch,                       /* 1: have the weights sent for that lie FASTGRU_FETCH_BYTES behind these */
    vreal *sums,                     /* (rows, panels, 3)  in and out                      */
    ptrdiff_t k,
    const real *a,                   /* (rows, k + 1 or more)                              */
    ptrdiff_t a_stride,
    const char *w,                   /* (panels, k + 1 or more, gates, VLEN) packed weights */
    size_t panel_bytes)
{
    EACH(p, panels) {
        const weight *at = (const weight *)(w + (size_t)p * panel_bytes) + k * gates * VLEN;
        vreal column[3];
        if (fetch)
            EACH(line, (gates * VLEN * (int)sizeof(weight) + 63) / 64)
                PREFETCH((uintptr_t)at + FASTGRU_FETCH_BYTES + 64 * (uintptr_t)line);
        EACH(g, gates)
            column[g] = load_weights(at + g * VLEN);
        EACH(row, rows) {
            const vreal factor = vset(a[row * a_stride + k]);
            EACH(g, gates)
                sums[(row * panels + p) * 3 + g] = vfma(factor, column[g], sums[(row * panels + p) * 3 + g]);
        }
    }
}

/* sums := a.W over k from `k` to before `end`: ascending, one chain of multiply-adds per sum. */
INLINE void FORMAT(chain)(
    int rows, int panels, int gates, int fetch,
    vreal *sums,                     /* (rows, panels, 3)  overwritten                     */
    ptrdiff_t k, ptrdiff_t end,
    const real *a,                   /* (rows, end or more)                                */
    ptrdiff_t a_stride,
    const char *w,                   /* (panels, end or more, gates, VLEN) packed weights  */
    size_t panel_bytes)
{
    EACH(v, rows * panels) EACH(g, gates)
        sums[v * 3 + g] = vset(0);
    if (rows > 2) {  /* many rows are limited by how many instructions start in a cycle: fewer for the loop */
        UNROLL_TWICE
        for (; k < end; ++k)
            FORMAT(link)(rows, panels, gates, fetch, sums, k, a, a_stride, w, panel_bytes);
    } else {
        for (; k < end; ++k)
            FORMAT(link)(rows, panels, gates, fetch, sums, k, a, a_stride, w, panel_bytes);
    }
}

/* sums := a.W, by a chain over each half of k. With e the machine's epsilon, the error of a sum is at most about
 * (n / 2 + 1) e |a|.|W| with FUSED, twice that without. */
INLINE void FORMAT(halves)(
    int rows, int panels, int gates, int fetch,
    vreal *sums,                     /* (rows, panels, 3)  overwritten                     */
    ptrdiff_t n,
    const real *a,                   /* (rows, n)                                          */
    ptrdiff_t a_stride,
    const char *w,                   /* (panels, n, gates, VLEN) packed weights            */
    size_t panel_bytes)
{
    FORMAT(sums) half;
    FORMAT(chain)(rows, panels, gates, fetch, half, 0, n / 2, a, a_stride, w, panel_bytes);
    EACH(v, rows * panels) EACH(g, gates)
        sums[v * 3 + g] = half[v * 3 + g];
    BARRIER;  /* or GCC keeps them in registers, which the second chain has to do without */
    FORMAT(chain)(rows, panels, gates, fetch, half, n / 2, n, a, a_stride, w, panel_bytes);
    EACH(v, rows * panels) EACH(g, gates)
        sums[v * 3 + g] += half[v * 3 + g];
}

/* The same for one size of tile. Never inlined: the loops want every register that there is, and nothing else to hold.
 * But known where they are called: of a pointer from elsewhere a compiler would assume that it changes anything. Tiles
 * of one or two rows load weights fast enough to keep memory busy; larger ones have to fetch them, too. */
typedef void (*FORMAT(product))(
    vreal *sums,                     /* (rows, panels, 3)  overwritten                     */
    ptrdiff_t n,
    const real *a,                   /* (rows, n)                                          */
    ptrdiff_t a_stride,
    const char *w,                   /* (panels, n, gates, VLEN) packed weights            */
    size_t panel_bytes,
    int out_of_cache);               /* 1 if the weights are in memory rather than in a cache */

#define DEFINE(gates, rows, panels)                                                                        \
    OUTLINE void FORMAT(product_##gates##_##rows##x##panels)(                                              \
        vreal *sums, ptrdiff_t n, const real *a, ptrdiff_t a_stride, const char *w, size_t panel_bytes,    \
        int out_of_cache)                                                                                  \
    {                                                                                                      \
        if (rows > 2 && out_of_cache)                                                                      \
            FORMAT(halves)(rows, panels, gates, 1, sums, n, a, a_stride, w, panel_bytes);                  \
        else                                                                                               \
            FORMAT(halves)(rows, panels, gates, 0, sums, n, a, a_stride, w, panel_bytes);                  \
    }
#define PLACE(gates, rows, panels) \
    [gates - 2][TILE_SIZE(rows)][panels - 1] = FORMAT(product_##gates##_##rows##x##panels),

EACH_TILE(DEFINE, 2)
EACH_TILE(DEFINE, 3)
static const FORMAT(product) FORMAT(products)[2][TILE_SIZES][4] = {EACH_TILE(PLACE, 2) EACH_TILE(PLACE, 3)};

#undef DEFINE
#undef PLACE
