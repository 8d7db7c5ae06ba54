/* gates.h - what follows a product: gates, candidate, blend and mask.
 *
 * In the order of Keras: bias to the input projection, then the recurrent part, then the activation (Cho et al. 2014,
 * arXiv:1406.1078; reset after: its version 1). Only that both biases of z and r have been added up before. */

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
 * while one waits for an exponential or a division, the others go on. Instances by the number of vectors: they are too
 * large for a compiler to make them of its own accord. */

#define EACH(v, n) UNROLL for (int v = 0; v < (n); ++v)

/* h := h' for n vectors, from what the gates are functions of. Reset before: candidates are whole. */
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

/* n <= 4 vectors: row by row those of `panels` neighbours, the first of which begins at `unit`; from that `column`
 * of that `row` on. Vector v is that of row i and of the units from j on. */
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

/* A step of n vectors, reset after. */
INLINE void KERNEL(finish_after)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass,
    ptrdiff_t row, ptrdiff_t unit, int panels, int column, int n,
    const vreal *sums,               /* (n, 3)  z, r, recurrent part of the candidate      */
    const vreal *candidates)         /* (n)     its input part                             */
{
    vreal h[4];
    KERNEL(load_states)(layer, pass, row, unit, panels, column, n, h);
    KERNEL(next_states_of)(n, 1, layer, sums, candidates, h);
    KERNEL(store_states)(layer, pass, row, unit, panels, column, n, h);
}

/* Reset before; what z is a function of is in xw. */
OUTLINE void KERNEL(finish_before)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass,
    ptrdiff_t row, ptrdiff_t unit, int panels, int column, int n,
    const vreal *candidates)         /* (n)     whole                                      */
{
    const real *xw = (const real *)pass->xw;
    vreal h[4], sums[12];
    KERNEL(load_states)(layer, pass, row, unit, panels, column, n, h);
    for (EACH_VECTOR(v, i, j))
        sums[v * 3] = vload(xw + i * pass->xw_stride + j * 3, VLEN);
    if (n == 4)
        KERNEL(next_states_of)(4, 0, layer, sums, candidates, h);
    else
        for (int v = 0; v < n; ++v)
            KERNEL(next_states_of)(1, 0, layer, sums + v * 3, candidates + v, h + v);
    KERNEL(store_states)(layer, pass, row, unit, panels, column, n, h);
}

/* rh := r * h */
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
        vstore((real *)pass->rh + i * layer->units + j, r[v] * h[v], KERNEL(lanes)(layer, j));
}

#define DEFINE(n)                                                                                  \
    OUTLINE void KERNEL(finish_after_##n)(                                                         \
        const struct fastgru_layer *layer, const struct fastgru_pass *pass,                        \
        ptrdiff_t row, ptrdiff_t unit, int panels, int column, const vreal *sums, const vreal *candidates) \
    {                                                                                              \
        KERNEL(finish_after)(layer, pass, row, unit, panels, column, n, sums, candidates);         \
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

/* ---- the elementwise half by itself, for products that come from elsewhere ----------------
 *
 * struct fastgru_gates in fastgru.h has the shapes. */

/* What a masked row leaves behind: its state as it was, and as output the one of its last
 * valid step, which is the state, or zeros if there was none or if zeros are asked for. */
INLINE void KERNEL(masked_row)(const struct fastgru_gates *s, const real *h, real *out, int seen)
{
    if (!out)
        return;
    if (seen && !s->zero_output_for_mask)
        memcpy(out, h, (size_t)s->units * sizeof(real));
    else
        memset(out, 0, (size_t)s->units * sizeof(real));
}

/* The next state of `n` <= VLEN units of one row. */
INLINE void KERNEL(gates_block)(
    int n, ptrdiff_t units, int reset_after, int f, real f_alpha, int g, real g_alpha,
    const real *bias,             /* (3 * units) at this block, like all that follow       */
    const real *recurrent_bias,   /* (units)     reset after only                          */
    const real *xw,               /* (3 * units); reset before: (r * h).Uh in the middle   */
    const real *hu,               /* (3 * units); reset before: (2 * units)                */
    real *h,                      /* (units)     in and out                                */
    real *out)                    /* (units)     overwritten, or NULL                      */
{
    const vreal xz = vload(xw, n) + vload(bias, n);
    vreal candidate = vload(xw + 2 * units, n) + vload(bias + 2 * units, n);
    if (reset_after) {
        const vreal xr = vload(xw + units, n) + vload(bias + units, n);
        const vreal r = KERNEL(gate)(f, f_alpha, xr + vload(hu + units, n));
        candidate += r * (vload(hu + 2 * units, n) + vload(recurrent_bias, n));
    } else {
        candidate += vload(xw + units, n);
    }
    const vreal z = KERNEL(gate)(f, f_alpha, xz + vload(hu, n));
    const vreal hh = KERNEL(gate)(g, g_alpha, candidate);
    const vreal next = z * vload(h, n) + (1 - z) * hh;
    vstore(h, next, n);
    if (out)
        vstore(out, next, n);
}

INLINE void KERNEL(gates_rows)(const struct fastgru_gates *s, int reset_after, int f, int g)
{
    const ptrdiff_t units = s->units, whole = units - units % VLEN;
    const real f_alpha = (real)s->recurrent_alpha, g_alpha = (real)s->alpha;
    const real *bias = (const real *)s->bias, *recurrent_bias = (const real *)s->recurrent_bias;
    for (ptrdiff_t row = 0; row < s->rows; ++row) {
        const real *xw = (const real *)s->xw + row * s->xw_stride;
        const real *hu = (const real *)s->hu + row * (reset_after ? 3 : 2) * units;
        real *h = (real *)s->h + row * units;
        real *out = s->out ? (real *)s->out + row * s->out_stride : NULL;
        if (s->mask) {
            if (!s->mask[row * s->mask_stride]) {
                KERNEL(masked_row)(s, h, out, s->seen[row]);
                continue;
            }
            s->seen[row] = 1;
        }
        for (ptrdiff_t j = 0; j < whole; j += VLEN)
            KERNEL(gates_block)(VLEN, units, reset_after, f, f_alpha, g, g_alpha, bias + j, recurrent_bias + j,
                                xw + j, hu + j, h + j, out ? out + j : NULL);
        if (whole < units)
            KERNEL(gates_block)((int)(units - whole), units, reset_after, f, f_alpha, g, g_alpha, bias + whole,
                                recurrent_bias + whole, xw + whole, hu + whole, h + whole, out ? out + whole : NULL);
    }
}

/* The usual pairs of activations as constants, every other pair through one instance. */
INLINE void KERNEL(gates_by_activation)(const struct fastgru_gates *s, int reset_after)
{
    const int f = s->recurrent_activation, g = s->activation;
    if (f == FASTGRU_hard_sigmoid && g == FASTGRU_tanh)
        KERNEL(gates_rows)(s, reset_after, FASTGRU_hard_sigmoid, FASTGRU_tanh);
    else if (f == FASTGRU_sigmoid && g == FASTGRU_tanh)
        KERNEL(gates_rows)(s, reset_after, FASTGRU_sigmoid, FASTGRU_tanh);
    else
        KERNEL(gates_rows)(s, reset_after, f, g);
}

static void KERNEL(gates_reset_after)(const struct fastgru_gates *s)
{
    KERNEL(gates_by_activation)(s, 1);
}

static void KERNEL(gates_update)(const struct fastgru_gates *s)
{
    KERNEL(gates_by_activation)(s, 0);
}

/* hr := r * h. Masked rows too: nothing reads their product. */
static void KERNEL(gates_reset)(const struct fastgru_gates *s)
{
    const ptrdiff_t units = s->units;
    const int f = s->recurrent_activation;
    const real alpha = (real)s->recurrent_alpha, *bias = (const real *)s->bias + units;
    for (ptrdiff_t row = 0; row < s->rows; ++row) {
        const real *xr = (const real *)s->xw + row * s->xw_stride + units;
        const real *h = (const real *)s->h + row * units;
        real *hr = (real *)s->hu + row * 2 * units + units;
        for (ptrdiff_t j = 0; j < units; j += VLEN) {
            const int n = units - j < VLEN ? (int)(units - j) : VLEN;
            const vreal x = vload(xr + j, n) + vload(bias + j, n);
            const vreal r = KERNEL(gate)(f, alpha, x + vload(hr + j, n));
            vstore(hr + j, r * vload(h + j, n), n);
        }
    }
}
