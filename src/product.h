/* product.h - packed weights times few rows: the only code that has instances by size.
 *
 * A tile is a few rows times a few panels, whose sums are in registers. What is added to what, in which order, does not
 * depend on the tile, hence no bit does: a product is a chain of multiply-adds over each half of k, and the sum of both,
 * so that each chain rounds at the size of its own sum. The median error that tests/engine/test_accuracy.py prints was
 * 0.82 to 0.86 with halves, 1.00 with one chain for each product, and 1.22 with one chain from the bias through x to
 * the end of h. */

#define EACH(i, count) UNROLL for (int i = 0; i < (count); ++i)

/* EACH_TILE(OF_ONE_PANEL, (X, what)) is X(what, rows, 1) for every size of tile that is of one panel. */
#ifndef OF_ONE_PANEL
#define OF_ONE_PANEL(each, rows, panels) OF_PANELS_##panels(each, rows)
#define OF_PANELS_1(each, rows) WITH_ROWS(FIRST each, SECOND each, rows)
#define OF_PANELS_2(each, rows)
#define OF_PANELS_4(each, rows)
#define WITH_ROWS(...) WITH_THESE(__VA_ARGS__)
#define WITH_THESE(X, what, rows) X(what, rows, 1)
#define FIRST(X, what) X
#define SECOND(X, what) what
#endif

#ifndef TILE_ROWS

/* The most sums that registers have room for. */
#define TILE_SUMS (REGISTERS / 4 * 3)

/* EACH_TILE is X(what, rows, panels) for every size of tile, TILE_ROWS the most rows of one. TILE_PANELS has the most
 * panels of a tile of this many rows: a power of two, and fewer rows have every number that more rows have. TILE_NEXT
 * has the rows of the next tile if this many are left.
 *
 * Few chains of multiply-adds wait for each other: 9 or more keep two units busy. Where one gate has no room, it is
 * summed up by itself, from weights that are in the first-level cache by then. So all rows go through tiles of three or
 * more, and only one or two rows of a pass go through smaller ones.
 *
 * Gain of a call over tiles of 4, 2 and 1 rows (2026-11-30, Intel Xeon, float32; features x units;
 * python -m benchmarks.engines 2b63e3f . --isa avx2 --layers 5x100x20x192 5x50x288x384 ...):
 *
 *     rows              2     3     4     5     6     7     8     20    22    24
 *     avx2    20x192    1.00  1.34  1.00  1.04  1.13  1.23  1.00
 *             288x384                     0.99  1.09  1.17  1.05  1.06  1.04  1.07
 *     avx512  20x192    1.00        1.01  1.13  1.21  1.34  1.05
 *             288x384                     1.05  1.15  1.19  1.21  1.17  1.07  1.12 */
#if REGISTERS == 32
#define EACH_TILE(X, what) \
    X(what, 1, 1) X(what, 1, 2) X(what, 1, 4) X(what, 2, 1) X(what, 2, 2) X(what, 2, 4) X(what, 3, 1) X(what, 3, 2) \
    X(what, 4, 1) X(what, 4, 2) X(what, 5, 1) X(what, 6, 1) X(what, 7, 1) X(what, 8, 1)
#define TILE_ROWS 8
#define TILE_PANELS(rows) ((rows) <= 2 ? 4 : (rows) <= 4 ? 2 : 1)
#define TILE_NEXT(left) ((left) <= 8 ? (left) : (left) < 16 ? ((left) + 1) / 2 : 8)
#else
#define EACH_TILE(X, what) \
    X(what, 1, 1) X(what, 1, 2) X(what, 1, 4) X(what, 2, 1) X(what, 2, 2) X(what, 3, 1) X(what, 4, 1) \
    X(what, 5, 1) X(what, 6, 1)
#define TILE_ROWS 6
#define TILE_PANELS(rows) ((rows) == 1 ? 4 : (rows) == 2 ? 2 : 1)
#define TILE_NEXT(left) ((left) <= 6 ? (left) : 4)
#endif

#endif

#define EACH_GATE(g) UNROLL for (int g = first_gate; g < end_gate; ++g)

/* The vectors of a tile by row and panel, of each its gates. */
typedef vreal FORMAT(sums)[TILE_ROWS * 3];

/* sums += a.W of one k, of the gates from `first_gate` to before `end_gate`. */
INLINE void FORMAT(link)(
    int rows, int panels, int gates, int first_gate, int end_gate,
    int fetch,                       /* 1: prefetch the weights that lie FASTGRU_FETCH_BYTES after these */
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
        EACH_GATE(g)
            column[g] = load_weights(at + g * VLEN);
        EACH(row, rows) {
            const vreal factor = vset(a[row * a_stride + k]);
            EACH_GATE(g)
                sums[(row * panels + p) * 3 + g] = vfma(factor, column[g], sums[(row * panels + p) * 3 + g]);
        }
    }
}

/* sums := a.W over k from `k` to before `end`: ascending, one chain of multiply-adds per sum. */
INLINE void FORMAT(chain)(
    int rows, int panels, int gates, int first_gate, int end_gate, int fetch,
    vreal *sums,                     /* (rows, panels, 3)  overwritten                     */
    ptrdiff_t k, ptrdiff_t end,
    const real *a,                   /* (rows, end or more)                                */
    ptrdiff_t a_stride,
    const char *w,                   /* (panels, end or more, gates, VLEN) packed weights  */
    size_t panel_bytes)
{
    EACH(v, rows * panels) EACH_GATE(g)
        sums[v * 3 + g] = vset(0);
    if (rows > 2) {  /* many rows are limited by how many instructions start in a cycle: fewer for the loop */
        UNROLL_TWICE
        for (; k < end; ++k)
            FORMAT(link)(rows, panels, gates, first_gate, end_gate, fetch, sums, k, a, a_stride, w, panel_bytes);
    } else {
        for (; k < end; ++k)
            FORMAT(link)(rows, panels, gates, first_gate, end_gate, fetch, sums, k, a, a_stride, w, panel_bytes);
    }
}

/* sums := a.W, by a chain over each half of k. With e the machine's epsilon, the error of a sum is at most about
 * (n / 2 + 1) e |a|.|W| with FUSED, twice that without. */
INLINE void FORMAT(halves)(
    int rows, int panels, int gates, int first_gate, int end_gate, int fetch,
    vreal *sums,                     /* (rows, panels, 3)  overwritten                     */
    ptrdiff_t n,
    const real *a,                   /* (rows, n)                                          */
    ptrdiff_t a_stride,
    const char *w,                   /* (panels, n, gates, VLEN) packed weights            */
    size_t panel_bytes)
{
    FORMAT(sums) first, half;
    if (rows * panels * (end_gate - first_gate) < 8 && rows <= 4) {  /* few chains: those of both halves at a time,
                                        unless the addresses of so many rows have no room */
        EACH(v, rows * panels) EACH_GATE(g)
            first[v * 3 + g] = half[v * 3 + g] = vset(0);
        for (ptrdiff_t k = 0; k < n / 2; ++k) {
            FORMAT(link)(rows, panels, gates, first_gate, end_gate, fetch, first, k, a, a_stride, w, panel_bytes);
            FORMAT(link)(rows, panels, gates, first_gate, end_gate, fetch, half, n / 2 + k, a, a_stride, w,
                         panel_bytes);
        }
        if (n % 2)
            FORMAT(link)(rows, panels, gates, first_gate, end_gate, fetch, half, n - 1, a, a_stride, w, panel_bytes);
        EACH(v, rows * panels) EACH_GATE(g)
            sums[v * 3 + g] = first[v * 3 + g];
    } else {
        FORMAT(chain)(rows, panels, gates, first_gate, end_gate, fetch, half, 0, n / 2, a, a_stride, w, panel_bytes);
        EACH(v, rows * panels) EACH_GATE(g)
            sums[v * 3 + g] = half[v * 3 + g];
        BARRIER;  /* or GCC keeps them in registers, which the second chain needs */
        FORMAT(chain)(rows, panels, gates, first_gate, end_gate, fetch, half, n / 2, n, a, a_stride, w, panel_bytes);
    }
    EACH(v, rows * panels) EACH_GATE(g)
        sums[v * 3 + g] += half[v * 3 + g];
}

/* The same for one size of tile. Never inlined, because the loops need every register. But defined in the same
 * file as their callers: of a call through an unknown pointer a compiler assumes that it changes anything. Tiles of one
 * or two rows load weights fast enough to keep memory busy; larger ones must prefetch them, too. */
typedef void (*FORMAT(product))(
    vreal *sums,                     /* (rows, panels, 3)  overwritten                     */
    ptrdiff_t n,
    const real *a,                   /* (rows, n)                                          */
    ptrdiff_t a_stride,
    const char *w,                   /* (panels, n, gates, VLEN) packed weights            */
    size_t panel_bytes,
    int fetch);                      /* 1 if weights are not in the second-level cache     */

#define DEFINE(gates, rows, panels)                                                                        \
    OUTLINE void FORMAT(product_##gates##_##rows##x##panels)(                                              \
        vreal *sums, ptrdiff_t n, const real *a, ptrdiff_t a_stride, const char *w, size_t panel_bytes,    \
        int fetch)                                                                                         \
    {                                                                                                      \
        const int end = rows * panels * gates <= TILE_SUMS ? gates : 2;                                    \
        if (rows > 2 && fetch)                                                                             \
            FORMAT(halves)(rows, panels, gates, 0, end, 1, sums, n, a, a_stride, w, panel_bytes);          \
        else                                                                                               \
            FORMAT(halves)(rows, panels, gates, 0, end, 0, sums, n, a, a_stride, w, panel_bytes);          \
        if (end < gates)                                                                                   \
            FORMAT(halves)(rows, panels, gates, end, gates, 0, sums, n, a, a_stride, w, panel_bytes);      \
    }
#define PLACE(gates, rows, panels) \
    [gates - 1][rows - 1][panels - 1] = FORMAT(product_##gates##_##rows##x##panels),

EACH_TILE(OF_ONE_PANEL, (DEFINE, 1))
EACH_TILE(DEFINE, 2)
EACH_TILE(DEFINE, 3)
static const FORMAT(product) FORMAT(products)[3][TILE_ROWS][4] = {
    EACH_TILE(OF_ONE_PANEL, (PLACE, 1)) EACH_TILE(PLACE, 2) EACH_TILE(PLACE, 3)};

#undef DEFINE
#undef PLACE
#undef EACH_GATE
