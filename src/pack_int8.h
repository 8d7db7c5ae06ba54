/* pack_int8.h - int8 weights: what they are rounded to, and where they lie (product_int8.h).
 *
 * A panel's part for a matrix: groups of four k, (groups, gates, VLEN, 4); the scales of its columns, (gates, VLEN);
 * and of each column 2^15 times the sum of its integers, (gates, VLEN), for machines that multiply unsigned bytes. */

/* A vector of neighbouring columns: the first `lanes` are there, the others zero. */
INLINE vreal FORMAT(columns_of)(const real *matrix, ptrdiff_t row, ptrdiff_t width, ptrdiff_t column, int lanes)
{
    return lanes < 1 ? vset(0) : vload(matrix + row * width + column, lanes);
}

/* The scales of such columns: the given ones, or the largest weight of each by 127; 0 where all weights are zero, NaN
 * where one is not finite. */
static vreal FORMAT(scales_of)(
    const real *matrix,              /* (k, width)                                         */
    const real *given,               /* (width) or NULL                                    */
    ptrdiff_t k, ptrdiff_t width, ptrdiff_t column, int lanes)
{
    const vreal zero = vset(0);
    vreal most = zero, scales;
    vint finite = vless(zero, vset(1));
    for (ptrdiff_t row = 0; row < k; ++row) {
        const vreal size = vabs(FORMAT(columns_of)(matrix, row, width, column, lanes));
        finite &= vless(size, vset((real)INFINITY));
        most = vselect(vless(most, size), size, most);
    }
    scales = given && lanes > 0 ? vload(given + column, lanes) : most / vset(127);
    return vselect(finite, vselect(vless(zero, most), scales, zero), vset((real)NAN));
}

/* The units from `unit` on of some gates' columns of a matrix, those beyond the last unit zero. Returns where the next
 * part goes; `most` becomes the largest sum of a column's |integers|, if that is more. */
static char *FORMAT(pack_matrix)(
    char *packed,                    /* overwritten                                        */
    const real *matrix,              /* (k, width)                                         */
    const real *scales,              /* (width) or NULL                                    */
    ptrdiff_t k, ptrdiff_t width, int gates,
    const ptrdiff_t *columns,        /* (gates)  where the columns of a vector begin       */
    const ptrdiff_t *there,          /* (gates)  how many of its units there are, or less than 1 */
    int32_t *most)                   /* in and out                                         */
{
    const ptrdiff_t groups = (k + 3) / 4;
    real *scale = (real *)(void *)(packed + groups * gates * 4 * VLEN);
    int32_t *offset = (int32_t *)(void *)(scale + gates * VLEN);
    memset(packed, 0, (size_t)(groups * gates * 4 * VLEN));
    for (int gate = 0; gate < gates; ++gate) {
        const int lanes = there[gate] < 1 ? 0 : there[gate] < VLEN ? (int)there[gate] : VLEN;
        const vreal steps = FORMAT(scales_of)(matrix, scales, k, width, columns[gate], lanes);
        const vint used = vless(vset(0), steps);
        const vint none = vbits(vset(0));
        vint sums = none, sizes = none;
        for (ptrdiff_t row = 0; row < k; ++row) {
            const vreal x = FORMAT(columns_of)(matrix, row, width, columns[gate], lanes);
            vint integers, negative;
            vnearest(vat_most(vat_least(vselect(used, x / steps, vset(0)), -128), 127), 1, &integers);
            negative = vint_less(integers, none);
            sums += integers;
            sizes += (integers ^ negative) - negative;  /* |integers| */
            for (int i = 0; i < VLEN; ++i)
                packed[((row / 4 * gates + gate) * VLEN + i) * 4 + row % 4] = (char)vlane(integers, i);
        }
        vstore(scale + gate * VLEN, steps, VLEN);
        for (int i = 0; i < VLEN; ++i) {
            offset[gate * VLEN + i] = (int32_t)((uint32_t)vlane(sums, i) * 32768u);
            *most = vlane(sizes, i) > *most ? vlane(sizes, i) : *most;
        }
    }
    return (char *)(offset + gates * VLEN);
}

/* The largest |factor| with which no sum of products leaves int32. */
INLINE real FORMAT(limit)(int32_t most)
{
    const int32_t limit = most > 0 ? 2147483647 / most : FASTGRU_MOST_FACTOR;
    return (real)(limit < FASTGRU_MOST_FACTOR ? limit : FASTGRU_MOST_FACTOR);
}

/* fastgru_pack, where the layer says what lies where. */
static void FORMAT(pack)(
    const struct fastgru_layer *layer,
    const void *kernel,              /* as fastgru_pack has them                           */
    const void *recurrent_kernel,
    const void *bias)
{
    const ptrdiff_t units = layer->units, panels = (ptrdiff_t)layer->panel_count;
    const real *scales = (const real *)layer->scales, *u = (const real *)recurrent_kernel;
    const real *u_scales = scales ? scales + 3 * units : NULL;
    real *limits = (real *)layer->biases + fastgru_bias_count(layer);
    int32_t most_x = 0, most_h = 0;
    const int blocks = layer->dense ? fastgru_dense_blocks(layer) : 0;
    ptrdiff_t columns[3], there[3];
    KERNEL(pack_biases)(layer, (const real *)bias);
    for (ptrdiff_t panel = 0; layer->dense && panel < panels; ++panel) {
        for (int block = 0; block < blocks; ++block) {
            columns[block] = (panel * blocks + block) * VLEN;
            there[block] = units - columns[block];
        }
        FORMAT(pack_matrix)((char *)(uintptr_t)layer->panels + (size_t)panel * layer->panel_bytes, (const real *)kernel,
                            scales, layer->features, units, blocks, columns, there, &most_x);
    }
    for (ptrdiff_t panel = 0; !layer->dense && panel < panels; ++panel) {
        char *packed = (char *)(uintptr_t)layer->panels + (size_t)panel * layer->panel_bytes;
        for (int gate = 0; gate < 3; ++gate) {
            columns[gate] = gate * units + panel * VLEN;
            there[gate] = units - panel * VLEN;
        }
        packed = FORMAT(pack_matrix)(packed, (const real *)kernel, scales, layer->features, 3 * units, 3, columns,
                                     there, &most_x);
        FORMAT(pack_matrix)(packed, u, u_scales, units, 3 * units, layer->reset_after ? 3 : 2, columns, there, &most_h);
    }
    for (size_t panel = 0; panel < fastgru_candidate_count(layer); ++panel) {
        for (int block = 0; block < 3; ++block) {
            const ptrdiff_t unit = ((ptrdiff_t)panel * 3 + block) * VLEN;
            columns[block] = 2 * units + unit;
            there[block] = units - unit;
        }
        FORMAT(pack_matrix)((char *)(uintptr_t)layer->candidates + panel * layer->candidate_bytes, u, u_scales, units,
                            3 * units, 3, columns, there, &most_h);
    }
    limits[0] = FORMAT(limit)(most_x);
    limits[1] = FORMAT(limit)(most_h);
}
