/* gates.h - the elementwise half of a GRU step: one pass over each row.
 *
 * Included by kernels.h after activations.h; struct fastgru_gates in engine.h has the shapes.
 * Every operation in the order of Keras: bias to the input projection, then the recurrent
 * part, then the activation (Cho et al. 2014, arXiv:1406.1078; reset after: its version 1). */

/* The three activations that are worth an instance of the kernels, inlined; the others called. */
FASTGRU_INLINE vreal KERNEL(gate)(int activation, real alpha, vreal x)
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

/* h' from what the gates are functions of: z, r and the candidate's input and recurrent part, all with
 * their biases; reset before: `candidate` is whole, and r and `recurrent` are not looked at. */
FASTGRU_INLINE vreal KERNEL(next_state)(
    int reset_after, int f, real f_alpha, int g, real g_alpha,
    vreal z, vreal r, vreal candidate, vreal recurrent, vreal h)
{
    if (reset_after)
        candidate += KERNEL(gate)(f, f_alpha, r) * recurrent;
    z = KERNEL(gate)(f, f_alpha, z);
    return z * h + (1 - z) * KERNEL(gate)(g, g_alpha, candidate);
}

/* ---- the end of a tile: a vector of units of one row, from sums to memory ----------------
 *
 * Called and not inlined: a tile has many vectors, and their sums pass in registers. */

FASTGRU_INLINE int KERNEL(lanes)(const struct fastgru_layer *layer, ptrdiff_t unit)
{
    return layer->units - unit < VLEN ? (int)(layer->units - unit) : VLEN;
}

FASTGRU_INLINE vreal KERNEL(state)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t unit)
{
    return vload((const real *)pass->h + row * layer->units + unit, KERNEL(lanes)(layer, unit));
}

/* The next state, the usual pairs of activations as instances of their own, and what the row's fate makes
 * of it. */
FASTGRU_INLINE void KERNEL(finish)(
    int reset_after, const struct fastgru_layer *layer, const struct fastgru_pass *pass,
    ptrdiff_t row, ptrdiff_t unit, vreal z, vreal r, vreal candidate, vreal recurrent)
{
    const int f = layer->recurrent_activation, g = layer->activation, n = KERNEL(lanes)(layer, unit);
    const int fate = pass->fate ? pass->fate[row] : (int)FASTGRU_STEPS;
    const vreal h = KERNEL(state)(layer, pass, row, unit);
    vreal next;
#define FASTGRU_PAIR(f, f_alpha, g, g_alpha) \
    KERNEL(next_state)(reset_after, f, f_alpha, g, g_alpha, z, r, candidate, recurrent, h)
    if (fate != FASTGRU_STEPS)
        next = h;
    else if (f == FASTGRU_sigmoid && g == FASTGRU_tanh)
        next = FASTGRU_PAIR(FASTGRU_sigmoid, 0, FASTGRU_tanh, 0);
    else if (f == FASTGRU_hard_sigmoid && g == FASTGRU_tanh)
        next = FASTGRU_PAIR(FASTGRU_hard_sigmoid, 0, FASTGRU_tanh, 0);
    else
        next = FASTGRU_PAIR(f, (real)layer->recurrent_alpha, g, (real)layer->alpha);
#undef FASTGRU_PAIR
    vstore((real *)pass->h_next + row * layer->units + unit, next, n);
    if (pass->out)
        vstore((real *)pass->out + row * pass->out_stride + unit, fate == FASTGRU_ZEROES ? vset(0) : next, n);
}

FASTGRU_OUTLINE void KERNEL(finish_after)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t unit,
    vreal z, vreal r, vreal candidate, vreal recurrent)
{
    KERNEL(finish)(1, layer, pass, row, unit, z, r, candidate, recurrent);
}

FASTGRU_OUTLINE void KERNEL(finish_before)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t unit,
    vreal z, vreal candidate)
{
    KERNEL(finish)(0, layer, pass, row, unit, z, vset(0), candidate, vset(0));
}

/* rh := r * h */
FASTGRU_OUTLINE void KERNEL(finish_reset)(
    const struct fastgru_layer *layer, const struct fastgru_pass *pass, ptrdiff_t row, ptrdiff_t unit, vreal r)
{
    const int f = layer->recurrent_activation;
    const vreal h = KERNEL(state)(layer, pass, row, unit);
    r = f == FASTGRU_sigmoid ? KERNEL(sigmoid)(r)
        : KERNEL(gate)(f, (real)layer->recurrent_alpha, r);
    vstore((real *)pass->rh + row * layer->units + unit, r * h, KERNEL(lanes)(layer, unit));
}

/* ---- the elementwise half by itself, for products that come from elsewhere ---------------- */

/* What a masked row leaves behind: its state as it was, and as output the one of its last
 * valid step, which is the state, or zeros if there was none or if zeros are asked for. */
FASTGRU_INLINE void KERNEL(masked_row)(const struct fastgru_gates *s, const real *h, real *out, int seen)
{
    if (!out)
        return;
    if (seen && !s->zero_output_for_mask)
        memcpy(out, h, (size_t)s->units * sizeof(real));
    else
        memset(out, 0, (size_t)s->units * sizeof(real));
}

/* The next state of `n` <= VLEN units of one row. */
FASTGRU_INLINE void KERNEL(gates_block)(
    int n, ptrdiff_t units, int reset_after, int f, real f_alpha, int g, real g_alpha,
    const real *bias,             /* (3 * units) at this block, like all that follow       */
    const real *recurrent_bias,   /* (units)     reset after only                          */
    const real *xw,               /* (3 * units); reset before: (r * h).Uh in the middle   */
    const real *hu,               /* (3 * units); reset before: (2 * units)                */
    real *h,                      /* (units)     in and out                                */
    real *out)                    /* (units)     overwritten, or NULL                      */
{
    const vreal z = vload(xw, n) + vload(bias, n) + vload(hu, n);
    vreal candidate = vload(xw + 2 * units, n) + vload(bias + 2 * units, n);
    vreal r = vset(0), recurrent = vset(0);
    if (reset_after) {
        r = vload(xw + units, n) + vload(bias + units, n) + vload(hu + units, n);
        recurrent = vload(hu + 2 * units, n) + vload(recurrent_bias, n);
    } else {
        candidate += vload(xw + units, n);
    }
    const vreal next = KERNEL(next_state)(
        reset_after, f, f_alpha, g, g_alpha, z, r, candidate, recurrent, vload(h, n));
    vstore(h, next, n);
    if (out)
        vstore(out, next, n);
}

FASTGRU_INLINE void KERNEL(gates_rows)(const struct fastgru_gates *s, int reset_after, int f, int g)
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
#define FASTGRU_BLOCK(n, j)                                                              \
    KERNEL(gates_block)(n, units, reset_after, f, f_alpha, g, g_alpha, bias + (j),   \
                        recurrent_bias + (j), xw + (j), hu + (j), h + (j), out ? out + (j) : NULL)
        for (ptrdiff_t j = 0; j < whole; j += VLEN)
            FASTGRU_BLOCK(VLEN, j);
        if (whole < units)
            FASTGRU_BLOCK((int)(units - whole), whole);
#undef FASTGRU_BLOCK
    }
}

/* The usual pairs of activations as constants, every other pair through one instance. */
FASTGRU_INLINE void KERNEL(gates_by_activation)(const struct fastgru_gates *s, int reset_after)
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
