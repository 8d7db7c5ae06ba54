/* dense.h - a dense layer: x.kernel + bias, of some steps of some rows. A panel holds three neighbouring blocks of units
 * side by side, like the panels of a GRU's candidates. */

/* out := x.kernel + bias */
INLINE void FORMAT(dense)(
    int rows, int panels,
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel)
{
    const ptrdiff_t unit = panel * 3 * VLEN, vectors = (layer->units - unit + VLEN - 1) / VLEN;
    const int there = vectors < panels * 3 ? (int)vectors : panels * 3;
    const real *biases = (const real *)layer->biases + unit;
    FORMAT(sums) sums;
    FORMAT(multiply)(rows, panels, 3, sums, layer->features, (const real *)pass->x + row * pass->x_stride,
                     pass->x_stride, layer->panels + (size_t)panel * layer->panel_bytes, layer->panel_bytes,
                     pass->fetch);
    EACH(i, rows)
        for (int v = 0; v < there; ++v)
            vstore((real *)pass->out + (row + i) * pass->out_stride + unit + v * VLEN,
                   sums[i * panels * 3 + v] + vload(biases + v * VLEN, VLEN), KERNEL(lanes)(layer, unit + v * VLEN));
}

#define DEFINE(what, rows, panels)                                                                  \
    static void FORMAT(what##_##rows##x##panels)(                                                   \
        const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t panel) \
    {                                                                                               \
        FORMAT(what)(rows, panels, layer, pass, row, panel);                                        \
    }
#define PLACE(what, rows, panels) [rows - 1][panels - 1] = FORMAT(what##_##rows##x##panels),

EACH_TILE(DEFINE, dense)
static const FORMAT(tile) FORMAT(tiles_dense)[TILE_ROWS][4] = {EACH_TILE(PLACE, dense)};

#undef DEFINE
#undef PLACE

/* Tiles lie along the longer of both axes, a pass of at most FASTGRU_DENSE_ROWS each; panels serve as many passes as
 * there is room for. */
static void FORMAT(dense_all)(
    const struct fastgru_layer *layer, const struct fastgru_projection *projection, void *scratch)
{
    const int by_rows = projection->rows >= projection->steps;
    const ptrdiff_t count = by_rows ? projection->steps : projection->rows;
    const ptrdiff_t length = by_rows ? projection->rows : projection->steps;
    struct fastgru_pass pass, passes[FASTGRU_PASSES];
    ptrdiff_t place = 0;
    (void)scratch;
    memset(&pass, 0, sizeof pass);
    pass.fetch = fastgru_weights(layer) >= FASTGRU_MANY_BYTES;
    pass.x_stride = by_rows ? projection->x_batch_stride : projection->x_time_stride;
    pass.out_stride = by_rows ? projection->xw_stride : projection->xw_time_stride;
    for (ptrdiff_t i = 0; i < count; ++i)
        for (ptrdiff_t first = 0; first < length; first += pass.rows) {
            const ptrdiff_t left = length - first;
            pass.rows = left < FASTGRU_DENSE_ROWS ? left : FASTGRU_DENSE_ROWS;
            pass.x = (const real *)projection->x + first * pass.x_stride
                + i * (by_rows ? projection->x_time_stride : projection->x_batch_stride);
            pass.out = (real *)projection->xw + first * pass.out_stride
                + i * (by_rows ? projection->xw_time_stride : projection->xw_stride);
            passes[place] = pass;
#if QUANTIZED
            passes[place].x_stride = fastgru_quantized_width(layer->features);
            passes[place].x = (real *)scratch + place * FASTGRU_DENSE_ROWS * passes[place].x_stride;
            for (ptrdiff_t row = 0; row < pass.rows; ++row)
                FORMAT(quantize)((real *)(uintptr_t)passes[place].x + row * passes[place].x_stride,
                                 (const real *)pass.x + row * pass.x_stride, layer->features,
                                 FORMAT(limit_of)(layer, 0));
#endif
            if (++place == FASTGRU_PASSES || (i + 1 == count && left == pass.rows)) {
                FORMAT(cover)(FORMAT(tiles_dense), layer, layer->panel_count, passes, place);
                place = 0;
            }
        }
}

#undef EACH
