/* gates.h - what follows a product: gates, candidate, blend and mask.
 *
 * In the order of Keras: bias to the input projection, then the recurrent part, then the activation (Cho et al. 2014,
 * arXiv:1406.1078; reset after: its version 1); only the two biases of z and of r are summed beforehand. */

/* The three activations that are worth an instance of the kernels, inlined; the others called. */
INLINE vreal KERNEL(gate)(int activation, real alpha, vreal x)
{
    switch (activation) {
    case FASTGRU_tanh:
        return KERNEL(tanh)(x);
    case FASTGRU_sigmoid:
        return KERNEL(sigmoid)(x);
    case FASTGRU_hard_sigmoid:
        return KERNEL(hard_sigmoid)(x);
    default:
        return KERNEL(activation)(activation, alpha, x);
    }
}

/* ---- the end of a tile: from sums to memory ------------------------------------------------
 *
 * Called and not inlined: there are many kinds of tiles. Four vectors of units at a time, stage by stage:
 * while one waits for an exponential or a division, the others go on. There are instances by the number of vectors,
 * because they are too large for a compiler to make by itself. */

#define EACH(v, n) UNROLL for (int v = 0; v < (n); ++v)

/* h := h' for n vectors, from the arguments of the gates. Reset before: candidates are complete. */
INLINE void KERNEL(next_states)(
    int n, int reset_after, int f, real f_alpha, int g, real g_alpha,
    const vreal *sums,               /* (n, 3)  z, r, recurrent part of the candidate      */
    const vreal *candidates,         /* (n)     its input part                             */
    vreal *h)                        /* (n)     in and out                                 */
{
    vreal z[4], hh[4];
    EACH(v, n)
        hh[v] = candidates[v];
    if (reset_after) {
        vreal r[4];
        EACH(v, n)
            r[v] = KERNEL(gate)(f, f_alpha, sums[v * 3 + 1]);
        EACH(v, n)
            hh[v] += r[v] * sums[v * 3 + 2];
    }
    EACH(v, n)
        z[v] = KERNEL(gate)(f, f_alpha, sums[v * 3]);
    EACH(v, n)
        hh[v] = KERNEL(gate)(g, g_alpha, hh[v]);
    EACH(v, n)
        h[v] = z[v] * h[v] + (1 - z[v]) * hh[v];
}

/* The same by the layer's activations: the usual pairs are instances of their own. */
INLINE void KERNEL(next_states_of)(
    int n, int reset_after, const struct fastgru_layer *layer, const vreal *sums, const vreal *candidates, vreal *h)
{
    const int f = layer->recurrent_activation, g = layer->activation;
    if (f == FASTGRU_sigmoid && g == FASTGRU_tanh)
        KERNEL(next_states)(n, reset_after, FASTGRU_sigmoid, 0, FASTGRU_tanh, 0, sums, candidates, h);
    else if (f == FASTGRU_hard_sigmoid && g == FASTGRU_tanh)
        KERNEL(next_states)(n, reset_after, FASTGRU_hard_sigmoid, 0, FASTGRU_tanh, 0, sums, candidates, h);
    else
        KERNEL(next_states)(n, reset_after, f, (real)layer->recurrent_alpha, g, (real)layer->alpha,
                            sums, candidates, h);
}

/* n <= 4 vectors of `panels` neighbouring panels, of which the first begins at `unit`: row by row, from `column` of
 * `row` on. Vector v belongs to row i and to the units from j on. */
#define EACH_VECTOR(v, i, j)                                                               \
    ptrdiff_t i = row, j = unit + column * VLEN, end = unit + panels * VLEN, v = 0;        \
    v < n;                                                                                 \
    ++v, j += VLEN, i += j == end, j = j == end ? unit : j

INLINE int KERNEL(lanes)(const struct fastgru_layer *layer, ptrdiff_t unit)
{
    return layer->units - unit < VLEN ? (int)(layer->units - unit) : VLEN;
}

INLINE void KERNEL(load_states)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass,
    ptrdiff_t row, ptrdiff_t unit, int panels, int column, int n,
    vreal *h)                        /* (n)     overwritten                                */
{
    for (EACH_VECTOR(v, i, j))
        h[v] = vload((const real *)pass->h + i * layer->units + j, KERNEL(lanes)(layer, j));
}

/* Next states and outputs, of a masked row by its action. */
INLINE void KERNEL(store_states)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass,
    ptrdiff_t row, ptrdiff_t unit, int panels, int column, int n,
    const vreal *h)                  /* (n)     next states                                */
{
    for (EACH_VECTOR(v, i, j)) {
        const int lanes = KERNEL(lanes)(layer, j);
        const int action = pass->actions ? pass->actions[i] : (int)FASTGRU_ROW_STEPS;
        const vreal next = action == FASTGRU_ROW_STEPS
            ? h[v] : vload((const real *)pass->h + i * layer->units + j, lanes);
        vstore((real *)pass->h_next + i * layer->units + j, next, lanes);
        if (pass->out)
            vstore((real *)pass->out + (pass->out_rows ? pass->out_rows[i] : i) * pass->out_stride + j,
                   action == FASTGRU_ROW_ZEROES ? vset(0) : next, lanes);
    }
}

/* A step of n vectors, a constant, from the arguments of the gates; next_states has their order. */
INLINE void KERNEL(finish)(
    int reset_after, const struct fastgru_layer *layer, const struct fastgru_pass *pass,
    ptrdiff_t row, ptrdiff_t unit, int panels, int column, int n,
    const vreal *sums,               /* (n, 3)                                             */
    const vreal *candidates)         /* (n)                                                */
{
    vreal h[4];
    KERNEL(load_states)(layer, pass, row, unit, panels, column, n, h);
    KERNEL(next_states_of)(n, reset_after, layer, sums, candidates, h);
    KERNEL(store_states)(layer, pass, row, unit, panels, column, n, h);
}

/* The same, reset before. */
OUTLINE void KERNEL(finish_before)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass,
    ptrdiff_t row, ptrdiff_t unit, int panels, int column, int n,
    const real *z, ptrdiff_t z_stride,  /* (n) of a vector each: the argument of z          */
    const vreal *candidates)         /* (n)     whole                                      */
{
    vreal sums[12];
    for (EACH_VECTOR(v, i, j))
        sums[v * 3] = vload(z + v * z_stride, KERNEL(lanes)(layer, j));
    if (n == 4)
        KERNEL(finish)(0, layer, pass, row, unit, panels, column, 4, sums, candidates);
    else
        for (int v = 0; v < n; ++v)
            KERNEL(finish)(0, layer, pass, row, unit, panels, column + v, 1, sums + v * 3, candidates + v);
}

/* scratch := r * h */
INLINE void KERNEL(finish_reset)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass,
    ptrdiff_t row, ptrdiff_t unit, int panels, int column, int n,
    const vreal *sums)               /* (n, 3)  r in the middle                            */
{
    const int f = layer->recurrent_activation;
    vreal h[4], r[4];
    KERNEL(load_states)(layer, pass, row, unit, panels, column, n, h);
    if (f == FASTGRU_sigmoid && n == 4)
        EACH(v, 4)
            r[v] = KERNEL(sigmoid)(sums[v * 3 + 1]);
    else
        for (int v = 0; v < n; ++v)
            r[v] = KERNEL(gate)(f, (real)layer->recurrent_alpha, sums[v * 3 + 1]);
    for (EACH_VECTOR(v, i, j))
        vstore((real *)pass->scratch + i * layer->units + j, r[v] * h[v], KERNEL(lanes)(layer, j));
}

#define DEFINE(n)                                                                                  \
    OUTLINE void KERNEL(finish_after_##n)(                                                         \
        const struct fastgru_layer *layer, const struct fastgru_pass *pass,                        \
        ptrdiff_t row, ptrdiff_t unit, int panels, int column, const vreal *sums, const vreal *candidates) \
    {                                                                                              \
        KERNEL(finish)(1, layer, pass, row, unit, panels, column, n, sums, candidates);            \
    }                                                                                              \
    OUTLINE void KERNEL(finish_reset_##n)(                                                         \
        const struct fastgru_layer *layer, const struct fastgru_pass *pass,                        \
        ptrdiff_t row, ptrdiff_t unit, int panels, int column, const vreal *sums)                  \
    {                                                                                              \
        KERNEL(finish_reset)(layer, pass, row, unit, panels, column, n, sums);                     \
    }
DEFINE(1) DEFINE(2) DEFINE(3) DEFINE(4)
#undef DEFINE

#undef EACH
#undef EACH_VECTOR

/* The instance for n vectors. */
#define FINISH(what, n) \
    ((n) == 4 ? KERNEL(what##_4) : (n) == 3 ? KERNEL(what##_3) : (n) == 2 ? KERNEL(what##_2) : KERNEL(what##_1))

/* ---- the elementwise half by itself, for products that come from elsewhere ----------------
 *
 * Gates lie as Keras has them, in three parts of `units` each: in xw, in the biases, and in h.recurrent_kernel. */

/* One vector of a row of xw + bias, from unit j on. */
INLINE vreal KERNEL(input_gate)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, int gate, ptrdiff_t j)
{
    const int lanes = KERNEL(lanes)(layer, j);
    return vload((const real *)pass->xw + row * pass->xw_stride + gate * layer->units + j, lanes)
        + vload((const real *)layer->biases + gate * layer->units + j, lanes);
}

/* n vectors of a row, four at most, from `unit` on. */
#define EACH_FOUR_UNITS(row, unit, n)                                                                    \
    for (ptrdiff_t row = 0; row < pass->rows; ++row)                                                     \
        for (ptrdiff_t unit = 0, n; n = (units - unit + VLEN - 1) / VLEN, n = n < 4 ? n : 4, unit < units; \
             unit += 4 * VLEN)

/* A step, reset after; scratch is (rows, 3, units). */
static void KERNEL(gates_after)(const struct fastgru_layer *layer, const struct fastgru_pass *pass)
{
    const ptrdiff_t units = layer->units;
    const real *recurrent_bias = (const real *)layer->biases + 3 * units;
    EACH_FOUR_UNITS(row, unit, n) {
        const real *hu = (const real *)pass->scratch + row * 3 * units;
        vreal sums[12], candidates[4];
        for (ptrdiff_t v = 0, j = unit; v < n; ++v, j += VLEN) {
            const int lanes = KERNEL(lanes)(layer, j);
            sums[v * 3] = KERNEL(input_gate)(layer, pass, row, 0, j) + vload(hu + j, lanes);
            sums[v * 3 + 1] = KERNEL(input_gate)(layer, pass, row, 1, j) + vload(hu + units + j, lanes);
            sums[v * 3 + 2] = vload(hu + 2 * units + j, lanes) + vload(recurrent_bias + j, lanes);
            candidates[v] = KERNEL(input_gate)(layer, pass, row, 2, j);
        }
        FINISH(finish_after, n)(layer, pass, row, unit, 4, 0, sums, candidates);
    }
}

/* Reset before: r * h goes to scratch, (rows, units), after which lies h.U of z and r, (rows, 2, units); the argument
 * of z goes to xw. */
static void KERNEL(gates_reset)(const struct fastgru_layer *layer, const struct fastgru_pass *pass)
{
    const ptrdiff_t units = layer->units;
    EACH_FOUR_UNITS(row, unit, n) {
        const real *hu = (const real *)pass->scratch + (pass->rows + row * 2) * units;
        vreal sums[12];
        for (ptrdiff_t v = 0, j = unit; v < n; ++v, j += VLEN) {
            const int lanes = KERNEL(lanes)(layer, j);
            vstore((real *)pass->xw + row * pass->xw_stride + j,
                   KERNEL(input_gate)(layer, pass, row, 0, j) + vload(hu + j, lanes), lanes);
            sums[v * 3 + 1] = KERNEL(input_gate)(layer, pass, row, 1, j) + vload(hu + units + j, lanes);
        }
        FINISH(finish_reset, n)(layer, pass, row, unit, 4, 0, sums);
    }
}

/* The rest of it, with (r * h).Uh in the r part of xw. */
static void KERNEL(gates_update)(const struct fastgru_layer *layer, const struct fastgru_pass *pass)
{
    const ptrdiff_t units = layer->units;
    EACH_FOUR_UNITS(row, unit, n) {
        const real *xw = (const real *)pass->xw + row * pass->xw_stride;
        vreal candidates[4];
        for (ptrdiff_t v = 0, j = unit; v < n; ++v, j += VLEN)
            candidates[v] = KERNEL(input_gate)(layer, pass, row, 2, j) + vload(xw + units + j, KERNEL(lanes)(layer, j));
        KERNEL(finish_before)(layer, pass, row, unit, 4, 0, (int)n, xw + unit, VLEN, candidates);
    }
}

#undef EACH_FOUR_UNITS
