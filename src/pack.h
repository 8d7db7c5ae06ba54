/* pack.h - a format of packed weights: `weight` is what an element is, load_weights, to_weight and fastgru_pack.
 *
 * A panel holds the weights of VLEN units: for each k a vector of every gate, side by side (fastgru_lay_out). */

#undef weight
#undef load_weights
#undef to_weight
#if FLOAT16
#define weight uint16_t
#define load_weights vload_half
#define to_weight to_half
#else
#define weight real
#define load_weights(p) vload(p, VLEN)
#define to_weight(x) (x)
#endif

/* One vector: the first VLEN of n neighbours in a row of a matrix, padded with zeros. Returns where the next one
 * goes. */
INLINE weight *FORMAT(pack_vector)(
    weight *packed,                  /* (VLEN)  overwritten                                */
    const real *row,                 /* (n)                                                */
    ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < VLEN; ++i)
        packed[i] = to_weight(i < n ? row[i] : 0);
    return packed + VLEN;
}

/* The panel of the units from `unit` on: the first `gates` of a matrix. Returns where the next one goes. */
INLINE weight *FORMAT(pack_gates)(
    weight *packed,                  /* (k, gates, VLEN)  overwritten                      */
    const real *matrix,              /* (k, 3 * units)                                     */
    ptrdiff_t k, ptrdiff_t units, ptrdiff_t unit, int gates)
{
    for (ptrdiff_t row = 0; row < k; ++row)
        for (int gate = 0; gate < gates; ++gate)
            packed = FORMAT(pack_vector)(packed, matrix + (row * 3 + gate) * units + unit, units - unit);
    return packed;
}

/* A panel of some neighbouring blocks of units, of columns of a matrix. */
static void FORMAT(pack_blocks)(
    weight *packed,                  /* (k, blocks, VLEN)  overwritten                     */
    const real *matrix,              /* (k, width): the columns of the units               */
    ptrdiff_t k, ptrdiff_t width, ptrdiff_t units, ptrdiff_t panel, int blocks)
{
    for (ptrdiff_t row = 0; row < k; ++row)
        for (ptrdiff_t block = 0; block < blocks; ++block) {
            const ptrdiff_t unit = (panel * blocks + block) * VLEN;
            const ptrdiff_t n = unit < units ? units - unit : 0;
            packed = FORMAT(pack_vector)(packed, matrix + row * width + (n ? unit : 0), n);
        }
}

/* fastgru_pack into a layer that is laid out. */
static void FORMAT(pack)(
    const struct fastgru_layer *layer,
    const void *kernel,              /* as fastgru_pack has them                           */
    const void *recurrent_kernel,
    const void *bias)
{
    const ptrdiff_t units = layer->units, panels = (ptrdiff_t)layer->panel_count;
    const real *u = (const real *)recurrent_kernel;
    KERNEL(pack_biases)(layer, (const real *)bias);
    for (ptrdiff_t panel = 0; panel < panels; ++panel) {
        const ptrdiff_t unit = panel * VLEN;
        weight *packed = (weight *)(layer->panels + (size_t)panel * layer->panel_bytes);
        if (layer->dense) {
            FORMAT(pack_blocks)(packed, (const real *)kernel, layer->features, units, units, panel,
                                fastgru_dense_blocks(layer));
            continue;
        }
        packed = FORMAT(pack_gates)(packed, (const real *)kernel, layer->features, units, unit, 3);
        FORMAT(pack_gates)(packed, u, units, units, unit, layer->reset_after ? 3 : 2);
    }
    for (size_t panel = 0; panel < fastgru_candidate_count(layer); ++panel)
        FORMAT(pack_blocks)((weight *)(layer->candidates + panel * layer->candidate_bytes), u + 2 * units, units,
                            3 * units, units, (ptrdiff_t)panel, 3);
}
