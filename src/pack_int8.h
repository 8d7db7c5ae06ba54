/* pack_int8.h - int8 weights: what they are rounded to, and where they lie (product_int8.h).
 *
 * A panel's part for a matrix: groups of four k, (groups, gates, VLEN, 4); the scales of its columns, (gates, VLEN);
 * and of each column 2^15 times the sum of its integers, (gates, VLEN), for machines that multiply unsigned bytes. */

/* The nearest integer of x, |x| below 2^22, ties to even. */
INLINE int32_t FORMAT(nearest)(real x)
{
    vint lanes;
    vnearest(vset(x), 1, &lanes);
    return vlane(lanes, 0);
}

/* The scale of a column: the one that was given, or the largest weight's by 127; 0 if all weights are zero, and NaN if
 * one is not finite. */
static real FORMAT(scale)(
    const real *given,               /* of the column, or NULL                             */
    const real *column,              /* (k), every `stride`-th element                     */
    ptrdiff_t k, ptrdiff_t stride)
{
    real most = 0;
    for (ptrdiff_t row = 0; row < k; ++row) {
        const real size = column[row * stride] < 0 ? -column[row * stride] : column[row * stride];
        if (!(size <= FLT_MAX))
            return (real)NAN;
        most = size > most ? size : most;
    }
    return most == 0 ? 0 : given ? *given : most / 127;
}

/* A weight as an integer. */
INLINE int32_t FORMAT(integer)(real x, real scale)
{
    const real quotient = scale > 0 ? x / scale : 0;
    return quotient > 127 ? 127 : quotient < -127 ? -127 : FORMAT(nearest)(quotient);
}

/* The units from `unit` on of some gates' columns of a matrix, those beyond the last unit zero. Returns where the next
 * part goes; `most` becomes the largest sum of a column's |integers|, if that is more. */
static char *FORMAT(pack_matrix)(
    char *packed,                    /* overwritten                                        */
    const real *matrix,              /* (k, 3 * units)                                     */
    const real *scales,              /* (3 * units) or NULL                                */
    ptrdiff_t k, ptrdiff_t units, int gates,
    const ptrdiff_t *columns,        /* (gates)  where the columns of a vector begin       */
    const ptrdiff_t *there,          /* (gates)  how many of its units there are, or less than 1 */
    double *most)                    /* in and out                                         */
{
    const ptrdiff_t groups = (k + 3) / 4;
    real *scale = (real *)(void *)(packed + groups * gates * 4 * VLEN);
    int32_t *offset = (int32_t *)(void *)(scale + gates * VLEN);
    memset(packed, 0, (size_t)(groups * gates * 4 * VLEN));
    for (int gate = 0; gate < gates; ++gate)
        for (int i = 0; i < VLEN; ++i) {
            const int is_there = i < there[gate];
            const ptrdiff_t column = columns[gate] + i;
            const real size = is_there
                ? FORMAT(scale)(scales ? scales + column : NULL, matrix + column, k, 3 * units) : 0;
            double sum = 0, sizes = 0;
            for (ptrdiff_t row = 0; is_there && row < k; ++row) {
                const int32_t integer = FORMAT(integer)(matrix[row * 3 * units + column], size);
                packed[((row / 4 * gates + gate) * VLEN + i) * 4 + row % 4] = (char)integer;
                sum += integer;
                sizes += integer < 0 ? -integer : integer;
            }
            scale[gate * VLEN + i] = size;
            offset[gate * VLEN + i] = (int32_t)(uint32_t)((int64_t)sum * 32768);
            *most = sizes > *most ? sizes : *most;
        }
    return (char *)(offset + gates * VLEN);
}

/* The largest |factor| with which no sum of products leaves int32. */
INLINE real FORMAT(limit)(double most)
{
    const double limit = most > 0 ? 2147483647 / most : FASTGRU_MOST_FACTOR;
    return (real)(int32_t)(limit < FASTGRU_MOST_FACTOR ? limit : FASTGRU_MOST_FACTOR);
}

/* fastgru_pack, where the layer says what lies where. */
static void FORMAT(pack)(
    const struct fastgru_layer *layer,
    const void *kernel,              /* (features, 3 * units)                              */
    const void *recurrent_kernel,    /* (units, 3 * units)                                 */
    const void *bias)                /* (3 * units), reset after (2, 3 * units), or NULL   */
{
    const ptrdiff_t units = layer->units, panels = (ptrdiff_t)layer->panel_count;
    const real *scales = (const real *)layer->scales, *u = (const real *)recurrent_kernel;
    const real *u_scales = scales ? scales + 3 * units : NULL;
    real *limits = (real *)layer->biases + panels * 4 * VLEN;
    double most_x = 0, most_h = 0;
    ptrdiff_t columns[3], there[3];
    KERNEL(pack_biases)(layer, (const real *)bias);
    for (ptrdiff_t panel = 0; panel < panels; ++panel) {
        char *packed = (char *)(uintptr_t)layer->panels + (size_t)panel * layer->panel_bytes;
        for (int gate = 0; gate < 3; ++gate) {
            columns[gate] = gate * units + panel * VLEN;
            there[gate] = units - panel * VLEN;
        }
        packed = FORMAT(pack_matrix)(packed, (const real *)kernel, scales, layer->features, units, 3, columns, there,
                                     &most_x);
        FORMAT(pack_matrix)(packed, u, u_scales, units, units, layer->reset_after ? 3 : 2, columns, there, &most_h);
    }
    for (size_t panel = 0; panel < fastgru_candidate_count(layer); ++panel) {
        for (int block = 0; block < 3; ++block) {
            const ptrdiff_t unit = ((ptrdiff_t)panel * 3 + block) * VLEN;
            columns[block] = 2 * units + unit;
            there[block] = units - unit;
        }
        FORMAT(pack_matrix)((char *)(uintptr_t)layer->candidates + panel * layer->candidate_bytes, u, u_scales, units,
                            units, 3, columns, there, &most_h);
    }
    limits[0] = FORMAT(limit)(most_x);
    limits[1] = FORMAT(limit)(most_h);
}
