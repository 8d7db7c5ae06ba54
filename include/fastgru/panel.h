/* panel.h - packed weights times few rows, and a step of a GRU on top of it, in registers.
 *
 * Included by kernels.h after gates.h, once per type of packed weights, with PANEL, which names things, and
 *
 *     FASTGRU_WEIGHTS   its name: f32, f64, f16
 *     FASTGRU_FLOAT16   1 if weights are float16 and everything else float32
 *
 * A panel holds the weights of VLEN units: for each k a vector of every gate, side by side. A tile is
 * a few rows times a few panels, whose sums are in registers. What is added to what, in which order, does not
 * depend on the tile, hence no bit does. x.kernel and h.recurrent_kernel are added at their ends, and so are the
 * two halves of either: every chain of multiply-adds rounds at the size of its own sum. The median that
 * tests/test_accuracy.py prints was 1.00 without halves, and 1.22 with h going on from x and x from the bias.
 *
 * Variants of weights differ in `weight`, load_weights and to_weight alone. */

#if FASTGRU_FLOAT16
#define weight uint16_t
#define load_weights vload_half
#define to_weight to_half
#else
#define weight real
#define load_weights(p) vload(p, VLEN)
#define to_weight(x) (x)
#endif

/* ---- packing ------------------------------------------------------------------------- */

/* One vector: `n` <= VLEN neighbours of a row of a matrix, zeros behind them. */
FASTGRU_INLINE weight *PANEL(pack_vector)(weight *packed, const real *row, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < VLEN; ++i)
        packed[i] = to_weight(i < n ? row[i] : 0);
    return packed + VLEN;
}

/* One panel of a matrix (k, 3 * units): its gates from `first` to before `last`. */
FASTGRU_INLINE weight *PANEL(pack_gates)(
    weight *packed, const real *matrix, ptrdiff_t k, ptrdiff_t units, ptrdiff_t unit, int first, int last)
{
    for (ptrdiff_t row = 0; row < k; ++row)
        for (int gate = first; gate < last; ++gate)
            packed = PANEL(pack_vector)(packed, matrix + (row * 3 + gate) * units + unit, units - unit);
    return packed;
}

/* fastgru_pack, where the layer says what lies where. */
static void PANEL(pack)(
    const struct fastgru_layer *layer,
    const void *kernel, const void *recurrent_kernel, const void *bias)
{
    const ptrdiff_t units = layer->units, panels = (ptrdiff_t)fastgru_panel_count(layer);
    const real *u = (const real *)recurrent_kernel, *input_bias = (const real *)bias;
    for (ptrdiff_t panel = 0; panel < panels; ++panel) {
        const ptrdiff_t unit = panel * VLEN;
        real *b = (real *)layer->biases + panel * 4 * VLEN;
        for (ptrdiff_t i = 0; i < VLEN; ++i, ++b) {
            const real *from = bias && unit + i < units ? input_bias + unit + i : NULL;
            for (int gate = 0; gate < 3; ++gate)
                b[gate * VLEN] = from ? from[gate * units] : 0;
            b[3 * VLEN] = from && layer->reset_after ? from[5 * units] : 0;
            if (from && layer->reset_after) {
                /* z and r see only the sum of both biases */
                b[0] += from[3 * units];
                b[VLEN] += from[4 * units];
            }
        }
        weight *packed = (weight *)(layer->panels + (size_t)panel * layer->panel_bytes);
        packed = PANEL(pack_gates)(packed, (const real *)kernel, layer->features, units, unit, 0, 3);
        PANEL(pack_gates)(packed, u, units, units, unit, 0, layer->reset_after ? 3 : 2);
    }
    for (size_t panel = 0; panel < fastgru_candidate_count(layer); ++panel) {
        weight *packed = (weight *)(layer->candidates + panel * layer->candidate_bytes);
        for (ptrdiff_t row = 0; row < units; ++row)
            for (ptrdiff_t block = 0; block < 3; ++block) {
                const ptrdiff_t unit = ((ptrdiff_t)panel * 3 + block) * VLEN;
                const ptrdiff_t n = unit < units ? units - unit : 0;
                packed = PANEL(pack_vector)(packed, u + (row * 3 + 2) * units + (n ? unit : 0), n);
            }
    }
}

/* ---- tiles --------------------------------------------------------------------------- */

/* The most rows of a tile, and the most panels next to so many rows: 12 sums in 16 registers, 24 in 32. */
#define TILE_ROWS (FASTGRU_REGISTERS / 4)
#define TILE_PANELS(rows) (TILE_ROWS / (rows) < 4 ? TILE_ROWS / (rows) : 4)

/* The vectors of a tile by row and panel, of each its gates. */
typedef vreal PANEL(sums)[TILE_ROWS * 3];

#define EACH(i, count) FASTGRU_UNROLL for (int i = 0; i < (count); ++i)

/* ---- products ------------------------------------------------------------------------ */

/* sums += a.W of one k; fetch: and have the weights sent for that lie FASTGRU_FETCH_BYTES behind these. */
FASTGRU_INLINE void PANEL(link)(
    int rows, int panels, int gates, int fetch, PANEL(sums) sums, ptrdiff_t k,
    const real *a, ptrdiff_t a_stride, const char *w, size_t panel_bytes)
{
    EACH(p, panels) {
        const weight *at = (const weight *)(w + (size_t)p * panel_bytes) + k * gates * VLEN;
        vreal column[3];
        if (fetch)
            EACH(line, (gates * VLEN * (int)sizeof(weight) + 63) / 64)
                FASTGRU_PREFETCH((uintptr_t)at + FASTGRU_FETCH_BYTES + 64 * (uintptr_t)line);
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
FASTGRU_INLINE void PANEL(chain)(
    int rows, int panels, int gates, int fetch,
    PANEL(sums) sums,                /* overwritten                                        */
    ptrdiff_t k, ptrdiff_t end,
    const real *a,                   /* (rows, end)                                        */
    ptrdiff_t a_stride,
    const char *w,                   /* (panels, end, gates, VLEN) packed weights          */
    size_t panel_bytes)
{
    EACH(v, rows * panels) EACH(g, gates)
        sums[v * 3 + g] = vset(0);
    if (rows > 2) {  /* many rows are limited by how many instructions start in a cycle: fewer for the loop */
        FASTGRU_UNROLL_TWICE
        for (; k < end; ++k)
            PANEL(link)(rows, panels, gates, fetch, sums, k, a, a_stride, w, panel_bytes);
    } else {
        for (; k < end; ++k)
            PANEL(link)(rows, panels, gates, fetch, sums, k, a, a_stride, w, panel_bytes);
    }
}

#define PRODUCT                                                                                        \
    vreal *sums,                     /* (rows, panels, 3)  overwritten                             */ \
    ptrdiff_t n,                                                                                       \
    const real *a,                   /* (rows, n)                                                  */ \
    ptrdiff_t a_stride,                                                                                \
    const char *w,                   /* (panels, n, gates, VLEN) packed weights                    */ \
    size_t panel_bytes,                                                                                \
    int distant                      /* are they in memory rather than in a cache?                 */

/* sums := a.W, by a chain over each half of k: half as far to round for each, and a sum of both. */
FASTGRU_INLINE void PANEL(halves)(
    int rows, int panels, int gates, int fetch,
    vreal *sums, ptrdiff_t n, const real *a, ptrdiff_t a_stride, const char *w, size_t panel_bytes)
{
    PANEL(sums) half;
    PANEL(chain)(rows, panels, gates, fetch, half, 0, n / 2, a, a_stride, w, panel_bytes);
    EACH(v, rows * panels) EACH(g, gates)
        sums[v * 3 + g] = half[v * 3 + g];
    FASTGRU_BARRIER;  /* or GCC keeps them in registers, which the second chain has to do without */
    PANEL(chain)(rows, panels, gates, fetch, half, n / 2, n, a, a_stride, w, panel_bytes);
    EACH(v, rows * panels) EACH(g, gates)
        sums[v * 3 + g] += half[v * 3 + g];
}

/* Tiles of one or two rows load weights fast enough to keep memory busy; larger ones have to fetch them, too. */
FASTGRU_INLINE void PANEL(product_of)(int rows, int panels, int gates, PRODUCT)
{
    if (rows > 2 && distant)
        PANEL(halves)(rows, panels, gates, 1, sums, n, a, a_stride, w, panel_bytes);
    else
        PANEL(halves)(rows, panels, gates, 0, sums, n, a, a_stride, w, panel_bytes);
}

/* ---- instances ----------------------------------------------------------------------- */

/* INSTANCES(what, kind): functions by DEFINE_what, and a table of them, by the logarithm of the rows and by
 * the panels less one. */
#if FASTGRU_REGISTERS == 32
#define SIZES 4
#define INSTANCES(what, kind)                                                                              \
    DEFINE_##what(kind, 1, 1) DEFINE_##what(kind, 1, 2) DEFINE_##what(kind, 1, 3) DEFINE_##what(kind, 1, 4) \
    DEFINE_##what(kind, 2, 1) DEFINE_##what(kind, 2, 2) DEFINE_##what(kind, 2, 3) DEFINE_##what(kind, 2, 4) \
    DEFINE_##what(kind, 4, 1) DEFINE_##what(kind, 4, 2) DEFINE_##what(kind, 8, 1)                          \
    static const PANEL(what) PANEL(what##s_##kind)[SIZES][4] = {                                           \
        {PANEL(what##_##kind##_1x1), PANEL(what##_##kind##_1x2),                                           \
         PANEL(what##_##kind##_1x3), PANEL(what##_##kind##_1x4)},                                          \
        {PANEL(what##_##kind##_2x1), PANEL(what##_##kind##_2x2),                                           \
         PANEL(what##_##kind##_2x3), PANEL(what##_##kind##_2x4)},                                          \
        {PANEL(what##_##kind##_4x1), PANEL(what##_##kind##_4x2), NULL, NULL},                              \
        {PANEL(what##_##kind##_8x1), NULL, NULL, NULL}};
#else
#define SIZES 3
#define INSTANCES(what, kind)                                                                              \
    DEFINE_##what(kind, 1, 1) DEFINE_##what(kind, 1, 2) DEFINE_##what(kind, 1, 3) DEFINE_##what(kind, 1, 4) \
    DEFINE_##what(kind, 2, 1) DEFINE_##what(kind, 2, 2) DEFINE_##what(kind, 4, 1)                          \
    static const PANEL(what) PANEL(what##s_##kind)[SIZES][4] = {                                           \
        {PANEL(what##_##kind##_1x1), PANEL(what##_##kind##_1x2),                                           \
         PANEL(what##_##kind##_1x3), PANEL(what##_##kind##_1x4)},                                          \
        {PANEL(what##_##kind##_2x1), PANEL(what##_##kind##_2x2), NULL, NULL},                              \
        {PANEL(what##_##kind##_4x1), NULL, NULL, NULL}};
#endif

/* Products are never inlined: their loops want every register that there is, and nothing else to hold. */
typedef void (*PANEL(product))(PRODUCT);

#define DEFINE_product(gates, rows, panels)                                                     \
    FASTGRU_OUTLINE void PANEL(product_##gates##_##rows##x##panels)(PRODUCT)                    \
    {                                                                                           \
        PANEL(product_of)(rows, panels, gates, sums, n, a, a_stride, w, panel_bytes, distant);  \
    }

INSTANCES(product, 2)
INSTANCES(product, 3)

/* sums := a.W; rows, panels and gates are constants. */
FASTGRU_INLINE void PANEL(multiply)(int rows, int panels, int gates, PRODUCT)
{
    const int size = rows == 8 ? 3 : rows == 4 ? 2 : rows - 1;
    (gates == 2 ? PANEL(products_2) : PANEL(products_3))[size][panels - 1](
        sums, n, a, a_stride, w, panel_bytes, distant);
}

/* What a tile is: rows from `row` and panels from `panel` on, of one pass. */
#define TILE \
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel

/* sums := x.kernel + bias: computed, or loaded if that has been done. */
FASTGRU_INLINE void PANEL(input_part)(int rows, int panels, PANEL(sums) sums, TILE)
{
    const real *xw = (const real *)pass->xw + row * pass->xw_stride + panel * 3 * VLEN;
    const real *biases = (const real *)layer->biases + panel * 4 * VLEN;
    if (row >= pass->x_rows) {
        EACH(i, rows) EACH(p, panels) EACH(g, 3)
            sums[(i * panels + p) * 3 + g] = vload(xw + i * pass->xw_stride + (p * 3 + g) * VLEN, VLEN);
    } else {
        PANEL(multiply)(rows, panels, 3, sums, layer->features,
                        (const real *)pass->x + row * pass->x_stride, pass->x_stride,
                        layer->panels + (size_t)panel * layer->panel_bytes, layer->panel_bytes, pass->distant);
        EACH(i, rows) EACH(p, panels) EACH(g, 3)
            sums[(i * panels + p) * 3 + g] += vload(biases + (p * 4 + g) * VLEN, VLEN);
    }
}

/* sums := h.recurrent_kernel, of the first gates or of all. */
FASTGRU_INLINE void PANEL(recurrent_part)(int rows, int panels, int gates, PANEL(sums) sums, TILE)
{
    const char *w = layer->panels + (size_t)panel * layer->panel_bytes;
    PANEL(multiply)(rows, panels, gates, sums, layer->units,
                    (const real *)pass->h + row * layer->units, layer->units,
                    w + (size_t)layer->features * 3 * VLEN * sizeof(weight), layer->panel_bytes, pass->distant);
}

/* ---- what a tile is for ---------------------------------------------------------------- */

/* xw := x.kernel + bias */
FASTGRU_INLINE void PANEL(project)(int rows, int panels, TILE)
{
    real *xw = (real *)pass->xw + row * pass->xw_stride + panel * 3 * VLEN;
    PANEL(sums) sums;
    PANEL(input_part)(rows, panels, sums, layer, pass, row, panel);
    EACH(i, rows) EACH(p, panels) EACH(g, 3)
        vstore(xw + i * pass->xw_stride + (p * 3 + g) * VLEN, sums[(i * panels + p) * 3 + g], VLEN);
}

/* finish_... by fours: `v` is the first vector, `n` how many there are. */
#define EACH_FOUR(v, n, count) \
    FASTGRU_UNROLL             \
    for (int v = 0, n = (count) < 4 ? (count) : 4; v < (count); v += 4, n = (count) - v < 4 ? (count) - v : 4)

/* A step, reset after. */
FASTGRU_INLINE void PANEL(advance)(int rows, int panels, TILE)
{
    const real *biases = (const real *)layer->biases + panel * 4 * VLEN;
    PANEL(sums) inputs, sums;
    vreal candidates[TILE_ROWS];
    PANEL(input_part)(rows, panels, inputs, layer, pass, row, panel);
    PANEL(recurrent_part)(rows, panels, 3, sums, layer, pass, row, panel);
    EACH(i, rows) EACH(p, panels) {
        const int v = i * panels + p;
        sums[v * 3] += inputs[v * 3];
        sums[v * 3 + 1] += inputs[v * 3 + 1];
        sums[v * 3 + 2] += vload(biases + (p * 4 + 3) * VLEN, VLEN);
        candidates[v] = inputs[v * 3 + 2];
    }
    EACH_FOUR(v, n, rows * panels)
        KERNEL(finish_after)(layer, pass, row + v / panels, panel * VLEN, panels, v % panels, n,
                             sums + v * 3, candidates + v);
}

/* The first half of a step, reset before: rh := r * h; what z is a function of and the candidate's input
 * part go to xw. */
FASTGRU_INLINE void PANEL(reset)(int rows, int panels, TILE)
{
    real *xw = (real *)pass->xw + row * pass->xw_stride + panel * 3 * VLEN;
    PANEL(sums) inputs, sums;
    PANEL(input_part)(rows, panels, inputs, layer, pass, row, panel);
    PANEL(recurrent_part)(rows, panels, 2, sums, layer, pass, row, panel);
    EACH(i, rows) EACH(p, panels) {
        const int v = i * panels + p;
        real *slot = xw + i * pass->xw_stride + p * 3 * VLEN;
        sums[v * 3 + 1] += inputs[v * 3 + 1];
        vstore(slot, inputs[v * 3] + sums[v * 3], VLEN);
        vstore(slot + 2 * VLEN, inputs[v * 3 + 2], VLEN);
    }
    EACH_FOUR(v, n, rows * panels)
        KERNEL(finish_reset)(layer, pass, row + v / panels, panel * VLEN, panels, v % panels, n, sums + v * 3);
}

/* The second half: the candidate. A panel is three vectors of units here; of the last one those beyond
 * the units are summed up, of weights of zero, and dropped. */
FASTGRU_INLINE void PANEL(update)(int rows, int panels, TILE)
{
    const ptrdiff_t units = layer->units, unit = panel * 3 * VLEN;
    const real *xw = (const real *)pass->xw + row * pass->xw_stride + unit * 3 + 2 * VLEN;
    const ptrdiff_t vectors = (units - unit + VLEN - 1) / VLEN;
    const int there = vectors < panels * 3 ? (int)vectors : panels * 3;
    PANEL(sums) sums;
    PANEL(multiply)(rows, panels, 3, sums, units, (const real *)pass->rh + row * units, units,
                    layer->candidates + (size_t)panel * layer->candidate_bytes, layer->candidate_bytes,
                    pass->distant);
    EACH(i, rows) EACH(p, panels) EACH(g, 3)
        if (p * 3 + g < there)
            sums[(i * panels + p) * 3 + g] += vload(xw + i * pass->xw_stride + (p * 3 + g) * 3 * VLEN, VLEN);
    EACH(i, rows)
        for (int v = 0; v < there; v += 4)
            KERNEL(finish_before)(layer, pass, row + i, unit, there, v, there - v < 4 ? there - v : 4,
                                  sums + i * panels * 3 + v);
}

#undef EACH_FOUR

/* ---- a pass ---------------------------------------------------------------------------- */

typedef void (*PANEL(tile))(TILE);

#define DEFINE_tile(kind, rows, panels)                     \
    static void PANEL(tile_##kind##_##rows##x##panels)(TILE) \
    {                                                       \
        PANEL(kind)(rows, panels, layer, pass, row, panel); \
    }

INSTANCES(tile, project)
INSTANCES(tile, advance)
INSTANCES(tile, reset)
INSTANCES(tile, update)

/* Cover all rows of some passes and all panels with tiles. Panels go by fours, which are walked backwards every
 * other time: what was used last is still in the cache. A panel serves all rows before the next one. */
static void PANEL(cover)(
    const PANEL(tile) tiles[][4],
    const struct fastgru_layer *layer, size_t panel_count,
    const struct fastgru_pass *passes, ptrdiff_t count)
{
    const ptrdiff_t panels = (ptrdiff_t)panel_count, fours = (panels + 3) / 4;
    ptrdiff_t sizes = 0;             /* rows of the tiles that there are, a bit each       */
    for (ptrdiff_t i = 0; i < count; ++i)
        sizes |= (passes[i].rows & (TILE_ROWS - 1)) | (passes[i].rows < TILE_ROWS ? 0 : TILE_ROWS);
    for (ptrdiff_t i = 0; i < fours; ++i) {
        const ptrdiff_t first = 4 * (passes->backwards ? fours - 1 - i : i);
        const ptrdiff_t end = first + 4 < panels ? first + 4 : panels;
        for (int size = SIZES - 1; size >= 0; --size) {
            const ptrdiff_t rows = (ptrdiff_t)1 << size, most = TILE_PANELS(rows);
            if (!(sizes & rows))
                continue;
            for (ptrdiff_t panel = first; panel < end; panel += most) {
                const PANEL(tile) tile = tiles[size][(end - panel < most ? end - panel : most) - 1];
                for (const struct fastgru_pass *pass = passes; pass < passes + count; ++pass) {
                    const ptrdiff_t larger = rows < TILE_ROWS ? pass->rows & -(2 * rows) : 0;  /* tiles' rows */
                    for (ptrdiff_t row = larger; row + rows <= pass->rows; row += rows)
                        tile(layer, pass, row, panel);
                }
            }
        }
    }
}

#undef TILE_ROWS
#undef TILE_PANELS
#undef EACH
#undef TILE
#undef PRODUCT
#undef INSTANCES
#undef DEFINE_product
#undef DEFINE_tile
#undef SIZES
#undef weight
#undef load_weights
#undef to_weight
