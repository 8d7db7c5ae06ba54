/* gru.h - what a GRU does with products: a tile of x.kernel, or of a step, from products to memory; and how tiles cover
 * a pass, a chunk of steps and a step.
 *
 * In all of them `row` and `panel` are the tile's first, and rows and panels are constants. */

/* What is multiplied in place of an array (rows, units). */
#if QUANTIZED
#define FACTORS(array) ((const real *)pass->factors)
#define FACTORS_STRIDE pass->factors_stride
#else
#define FACTORS(array) ((const real *)(array))
#define FACTORS_STRIDE layer->units
#endif

/* sums := a.W */
INLINE void FORMAT(multiply)(
    int rows, int panels, int gates,
    vreal *sums,                     /* (rows, panels, 3)  overwritten                     */
    ptrdiff_t n,
    const real *a,                   /* (rows, n)                                          */
    ptrdiff_t a_stride,
    const char *w,                   /* (panels, n, gates, VLEN) packed weights            */
    size_t panel_bytes, int fetch)
{
    FORMAT(products)[gates - 1][rows - 1][panels - 1](
        sums, n, a, a_stride, w, panel_bytes, fetch);
}

/* sums := x.kernel + bias: computed, or loaded if that has been done. */
INLINE void FORMAT(input_part)(
    int rows, int panels,
    vreal *sums,                     /* (rows, panels, 3)  overwritten                     */
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel)
{
    const real *xw = (const real *)pass->xw + row * pass->xw_stride + panel * 3 * VLEN;
    const real *biases = (const real *)layer->biases + panel * 4 * VLEN;
    if (row >= pass->x_rows) {
        EACH(i, rows) EACH(p, panels) EACH(g, 3)
            sums[(i * panels + p) * 3 + g] = vload(xw + i * pass->xw_stride + (p * 3 + g) * VLEN, VLEN);
    } else {
        FORMAT(multiply)(rows, panels, 3, sums, layer->features,
                         (const real *)pass->x + row * pass->x_stride, pass->x_stride,
                         layer->panels + (size_t)panel * layer->panel_bytes, layer->panel_bytes, pass->fetch);
        EACH(i, rows) EACH(p, panels) EACH(g, 3)
            sums[(i * panels + p) * 3 + g] += vload(biases + (p * 4 + g) * VLEN, VLEN);
    }
}

/* sums := h.recurrent_kernel, of the first gates or of all. */
INLINE void FORMAT(recurrent_part)(
    int rows, int panels, int gates,
    vreal *sums,                     /* (rows, panels, 3)  overwritten                     */
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel)
{
    const char *w = layer->panels + (size_t)panel * layer->panel_bytes;
    const ptrdiff_t stride = FACTORS_STRIDE;
    FORMAT(multiply)(rows, panels, gates, sums, layer->units, FACTORS(pass->h) + row * stride, stride,
                     w + fastgru_panel_part(layer->kernels, layer->features, 3), layer->panel_bytes, pass->fetch);
}

/* ---- what a tile is for ---------------------------------------------------------------- */

/* xw := x.kernel + bias */
INLINE void FORMAT(project)(
    int rows, int panels,
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel)
{
    real *xw = (real *)pass->xw + row * pass->xw_stride + panel * 3 * VLEN;
    FORMAT(sums) sums;
    FORMAT(input_part)(rows, panels, sums, layer, pass, row, panel);
    EACH(i, rows) EACH(p, panels) EACH(g, 3)
        vstore(xw + i * pass->xw_stride + (p * 3 + g) * VLEN, sums[(i * panels + p) * 3 + g], VLEN);
}

/* Vectors by fours, as finish_... take them: `v` is the first one, `n` how many there are. */
#define EACH_FOUR(v, n, count) \
    UNROLL                     \
    for (int v = 0, n = (count) < 4 ? (count) : 4; v < (count); v += 4, n = (count) - v < 4 ? (count) - v : 4)

/* A step, reset after. */
INLINE void FORMAT(advance)(
    int rows, int panels,
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel)
{
    const real *biases = (const real *)layer->biases + panel * 4 * VLEN;
    FORMAT(sums) inputs, sums;
    vreal candidates[TILE_ROWS];
    FORMAT(input_part)(rows, panels, inputs, layer, pass, row, panel);
    FORMAT(recurrent_part)(rows, panels, 3, sums, layer, pass, row, panel);
    EACH(i, rows) EACH(p, panels) {
        const int v = i * panels + p;
        sums[v * 3] += inputs[v * 3];
        sums[v * 3 + 1] += inputs[v * 3 + 1];
        sums[v * 3 + 2] += vload(biases + (p * 4 + 3) * VLEN, VLEN);
        candidates[v] = inputs[v * 3 + 2];
    }
    EACH_FOUR(v, n, rows * panels)
        FINISH(finish_after, n)(
            layer, pass, row + v / panels, panel * VLEN, panels, v % panels, sums + v * 3, candidates + v);
}

/* The first half of a step, reset before: scratch := r * h; the argument of z and the candidate's input
 * part go to xw. */
INLINE void FORMAT(reset)(
    int rows, int panels,
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel)
{
    real *xw = (real *)pass->xw + row * pass->xw_stride + panel * 3 * VLEN;
    FORMAT(sums) inputs, sums;
    FORMAT(input_part)(rows, panels, inputs, layer, pass, row, panel);
    FORMAT(recurrent_part)(rows, panels, 2, sums, layer, pass, row, panel);
    EACH(i, rows) EACH(p, panels) {
        const int v = i * panels + p;
        real *slot = xw + i * pass->xw_stride + p * 3 * VLEN;
        sums[v * 3 + 1] += inputs[v * 3 + 1];
        vstore(slot, inputs[v * 3] + sums[v * 3], VLEN);
        vstore(slot + 2 * VLEN, inputs[v * 3 + 2], VLEN);
    }
    EACH_FOUR(v, n, rows * panels)
        FINISH(finish_reset, n)(
            layer, pass, row + v / panels, panel * VLEN, panels, v % panels, sums + v * 3);
}

/* The second half: the candidate. A panel is three vectors of units here; in the last one vectors
 * beyond the units are computed, from weights of zero, and dropped. */
INLINE void FORMAT(update)(
    int rows, int panels,
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel)
{
    const ptrdiff_t units = layer->units, unit = panel * 3 * VLEN;
    const real *xw = (const real *)pass->xw + row * pass->xw_stride + unit * 3 + 2 * VLEN;
    const ptrdiff_t vectors = (units - unit + VLEN - 1) / VLEN;
    const int there = vectors < panels * 3 ? (int)vectors : panels * 3;
    const ptrdiff_t stride = FACTORS_STRIDE;
    FORMAT(sums) sums;
    FORMAT(multiply)(rows, panels, 3, sums, units, FACTORS(pass->scratch) + row * stride, stride,
                     layer->candidates + (size_t)panel * layer->candidate_bytes, layer->candidate_bytes,
                     pass->fetch);
    EACH(i, rows) EACH(p, panels) EACH(g, 3)
        if (p * 3 + g < there)
            sums[(i * panels + p) * 3 + g] += vload(xw + i * pass->xw_stride + (p * 3 + g) * 3 * VLEN, VLEN);
    EACH(i, rows)
        for (int v = 0; v < there; v += 4)
            KERNEL(finish_before)(layer, pass, row + i, unit, there, v, there - v < 4 ? there - v : 4,
                                  (const real *)pass->xw + (row + i) * pass->xw_stride + (unit + v * VLEN) * 3,
                                  3 * VLEN, sums + i * panels * 3 + v);
}

#undef EACH_FOUR

/* ---- a pass ---------------------------------------------------------------------------- */

typedef void (*FORMAT(tile))(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel);

#define DEFINE(what, rows, panels)                                                                  \
    static void FORMAT(what##_##rows##x##panels)(                                                   \
        const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel) \
    {                                                                                               \
        FORMAT(what)(rows, panels, layer, pass, row, panel);                                        \
    }
#define PLACE(what, rows, panels) [rows - 1][panels - 1] = FORMAT(what##_##rows##x##panels),

EACH_TILE(DEFINE, project)
EACH_TILE(DEFINE, advance)
EACH_TILE(DEFINE, reset)
EACH_TILE(DEFINE, update)
static const FORMAT(tile) FORMAT(tiles_project)[TILE_ROWS][4] = {EACH_TILE(PLACE, project)};
static const FORMAT(tile) FORMAT(tiles_advance)[TILE_ROWS][4] = {EACH_TILE(PLACE, advance)};
static const FORMAT(tile) FORMAT(tiles_reset)[TILE_ROWS][4] = {EACH_TILE(PLACE, reset)};
static const FORMAT(tile) FORMAT(tiles_update)[TILE_ROWS][4] = {EACH_TILE(PLACE, update)};

#undef DEFINE
#undef PLACE

/* Cover all rows of some passes and all panels with tiles. Panels go by fours, which are walked backwards every
 * other time: what was used last is still in the cache. A panel serves all rows before the next one. */
static void FORMAT(cover)(
    const FORMAT(tile) tiles[][4],   /* (TILE_ROWS, 4)   what they do                      */
    const struct fastgru_layer *layer, size_t panel_count,
    const struct fastgru_pass *passes,  /* (count)                                         */
    ptrdiff_t count)
{
    const ptrdiff_t from = passes->first_panel, panels = passes->end_panel ? passes->end_panel : (ptrdiff_t)panel_count;
    const ptrdiff_t fours = (panels - from + 3) / 4;
    ptrdiff_t most = 0;              /* rows of a pass                                     */
    for (ptrdiff_t i = 0; i < count; ++i)
        most = passes[i].rows > most ? passes[i].rows : most;
    most = TILE_NEXT(most);
    for (ptrdiff_t i = 0; i < fours; ++i) {
        const ptrdiff_t first = from + 4 * (passes->backwards ? fours - 1 - i : i);
        const ptrdiff_t end = first + 4 < panels ? first + 4 : panels;
        for (ptrdiff_t panel = first, wide = TILE_PANELS(most); panel < end; panel += wide) {
            while (wide > end - panel)
                wide /= 2;
            for (const struct fastgru_pass *pass = passes; pass < passes + count; ++pass)
                for (ptrdiff_t row = 0, rows; row < pass->rows; row += rows) {
                    rows = TILE_NEXT(pass->rows - row);
                    tiles[rows - 1][wide - 1](layer, pass, row, panel);
                }
        }
    }
}

#if QUANTIZED

/* The largest factor of x, or of the state. */
INLINE real FORMAT(limit_of)(const struct fastgru_layer *layer, int of_state)
{
    return ((const real *)layer->biases)[(ptrdiff_t)fastgru_bias_count(layer) + of_state];
}

/* The factors of x of all steps and rows of a projection, behind their sums. */
static void FORMAT(quantize_all)(const struct fastgru_layer *layer, const struct fastgru_projection *projection)
{
    for (ptrdiff_t i = 0; i < projection->rows; ++i) {
        const ptrdiff_t row = projection->x_rows ? projection->x_rows[i] : i;
        const ptrdiff_t left = projection->lengths ? projection->lengths[i] - projection->start : projection->steps;
        for (ptrdiff_t step = 0; step < projection->steps && step < left; ++step)
            FORMAT(quantize)(
                (real *)projection->xw + i * projection->xw_stride + step * projection->xw_time_stride
                    + fastgru_sums_width(layer),
                (const real *)projection->x + row * projection->x_batch_stride + step * projection->x_time_stride,
                layer->features, FORMAT(limit_of)(layer, 0));
    }
}

/* The factors of some rows (units) of a pass. */
static void FORMAT(quantize_states)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, const void *states)
{
    for (ptrdiff_t row = 0; row < pass->rows; ++row)
        FORMAT(quantize)((real *)(uintptr_t)pass->factors + row * pass->factors_stride,
                         (const real *)states + row * layer->units, layer->units, FORMAT(limit_of)(layer, 1));
}

#endif

/* xw := x.kernel + bias. Tiles lie along the longer of both axes, a pass each, or along the steps of each row;
 * panels serve as many passes as there is room for. */
static void FORMAT(project_all)(const struct fastgru_layer *layer, struct fastgru_projection *projection)
{
    const ptrdiff_t steps = projection->steps;
    const int by_rows = !projection->lengths && projection->rows >= steps;
    const ptrdiff_t count = by_rows ? steps : projection->rows;
    struct fastgru_pass pass, passes[FASTGRU_PASSES];
    ptrdiff_t place = 0;
    memset(&pass, 0, sizeof pass);
    pass.fetch = fastgru_weights(layer) >= FASTGRU_MANY_BYTES;  /* many rows read the weights of a panel */
    pass.backwards = projection->backwards;
    pass.first_panel = projection->first_panel;
    pass.end_panel = projection->end_panel;
    pass.x_stride = by_rows ? projection->x_batch_stride : projection->x_time_stride;
    pass.xw_stride = by_rows ? projection->xw_stride : projection->xw_time_stride;
#if QUANTIZED
    if (projection->part != FASTGRU_PROJECT_PRODUCTS)
        FORMAT(quantize_all)(layer, projection);
    pass.x_stride = pass.xw_stride;
#endif
    if (projection->part == FASTGRU_PROJECT_FACTORS)
        return;
    for (ptrdiff_t i = 0; i < count; ++i) {
        const ptrdiff_t row = projection->x_rows ? projection->x_rows[i] : i;
        const ptrdiff_t left = projection->lengths ? projection->lengths[i] - projection->start : steps;
        pass.rows = by_rows ? projection->rows : left < 0 ? 0 : left < steps ? left : steps;
        pass.x_rows = pass.rows;
        pass.x = (const real *)projection->x + (by_rows ? i * projection->x_time_stride
                                                        : row * projection->x_batch_stride);
        pass.xw = (real *)projection->xw + i * (by_rows ? projection->xw_time_stride : projection->xw_stride);
#if QUANTIZED
        pass.x = (real *)pass.xw + fastgru_sums_width(layer);
#endif
        passes[place++] = pass;
        if (place == FASTGRU_PASSES || i + 1 == count) {
            FORMAT(cover)(FORMAT(tiles_project), layer, layer->panel_count, passes, place);
            pass.backwards = !pass.backwards;
            place = 0;
        }
    }
}

/* One timestep of the rows of a pass. */
static void FORMAT(step)(const struct fastgru_layer *layer, const struct fastgru_pass *pass)
{
#if QUANTIZED
    struct fastgru_pass quantized = *pass;
    if (!pass->factors)
        quantized.factors = (real *)pass->scratch
            + pass->rows * layer->kernels->step_units[layer->reset_after] * layer->units;
    quantized.factors_stride = fastgru_quantized_width(layer->units);
    if (pass->half != FASTGRU_UPDATE_HALF)
        FORMAT(quantize_states)(layer, &quantized, pass->h);
    if (pass->x_rows) {
        quantized.x = (real *)pass->xw + fastgru_sums_width(layer);
        quantized.x_stride = pass->xw_stride;
        for (ptrdiff_t row = 0; row < pass->x_rows; ++row)
            FORMAT(quantize)((real *)(uintptr_t)quantized.x + row * pass->xw_stride,
                             (const real *)pass->x + row * pass->x_stride, layer->features, FORMAT(limit_of)(layer, 0));
    }
    pass = &quantized;
#endif
    if (layer->reset_after) {
        FORMAT(cover)(FORMAT(tiles_advance), layer, layer->panel_count, pass, 1);
        return;
    }
    if (pass->half != FASTGRU_UPDATE_HALF)
        FORMAT(cover)(FORMAT(tiles_reset), layer, layer->panel_count, pass, 1);
    if (pass->half == FASTGRU_RESET_HALF)
        return;
#if QUANTIZED
    FORMAT(quantize_states)(layer, pass, pass->scratch);
#endif
    FORMAT(cover)(FORMAT(tiles_update), layer, fastgru_candidate_count(layer), pass, 1);
}

#undef FACTORS
#undef FACTORS_STRIDE
