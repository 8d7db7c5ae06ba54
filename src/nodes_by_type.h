/* nodes_by_type.h - what nodes do with numbers of one type, REAL; included by nodes.c for each. */

#define NUMBERS(x) ((const REAL *)(const void *)(x))

/* Sums and maxima have CHAINS parts, because processors add several numbers at a time: part c is that of the numbers c,
 * c + CHAINS and so on. The order in which the parts are put together is fixed. */

static double TYPED(together)(const double *parts)
{
    return ((parts[0] + parts[4]) + (parts[2] + parts[6])) + ((parts[1] + parts[5]) + (parts[3] + parts[7]));
}

static double TYPED(sum)(ptrdiff_t n, const REAL *x)
{
    double parts[CHAINS] = {0};
    ptrdiff_t i = 0;
    for (; i + CHAINS <= n; i += CHAINS)
        for (int c = 0; c < CHAINS; ++c)
            parts[c] += (double)x[i + c];
    for (int c = 0; i < n; ++i, ++c)
        parts[c] += (double)x[i];
    return TYPED(together)(parts);
}

/* The sum of (x - mean)^2. */
static double TYPED(sum_of_squares)(ptrdiff_t n, const REAL *x, double mean)
{
    double parts[CHAINS] = {0};
    ptrdiff_t i = 0;
    for (; i + CHAINS <= n; i += CHAINS)
        for (int c = 0; c < CHAINS; ++c)
            parts[c] += ((double)x[i + c] - mean) * ((double)x[i + c] - mean);
    for (int c = 0; i < n; ++i, ++c)
        parts[c] += ((double)x[i] - mean) * ((double)x[i] - mean);
    return TYPED(together)(parts);
}

/* The largest number, or NaN if there is one. */
static REAL TYPED(largest)(ptrdiff_t n, const REAL *x)
{
    REAL parts[CHAINS], most = x[0];
    ptrdiff_t i = 0;
    int nans = 0;
    for (int c = 0; c < CHAINS; ++c)
        parts[c] = x[0];
    for (; i + CHAINS <= n; i += CHAINS)
        for (int c = 0; c < CHAINS; ++c) {
            parts[c] = x[i + c] > parts[c] ? x[i + c] : parts[c];
            nans |= x[i + c] != x[i + c];
        }
    for (int c = 0; i < n; ++i, ++c) {
        parts[c] = x[i] > parts[c] ? x[i] : parts[c];
        nans |= x[i] != x[i];
    }
    for (int c = 0; c < CHAINS; ++c)
        most = parts[c] > most ? parts[c] : most;
    return nans ? (REAL)NAN : most;
}

/* y := softmax(x) or its logarithm. */
static void TYPED(softmax)(const struct work *w, const REAL *x, REAL *y)
{
    const ptrdiff_t n = w->out.width;
    const REAL most = TYPED(largest)(n, x);
    double sum = 0;
    for (ptrdiff_t i = 0; i < n; ++i)
        y[i] = x[i] - most;
    if (w->node->kind == FASTGRU_LOG_SOFTMAX) {
        REAL part[64];
        for (ptrdiff_t first = 0; first < n; first += 64) {
            const ptrdiff_t left = n - first < 64 ? n - first : 64;
            w->node->functions->activate(FASTGRU_exponential, 0, left, y + first, part);
            sum += TYPED(sum)(left, part);
        }
        sum = log_of(sum);
        for (ptrdiff_t i = 0; i < n; ++i)
            y[i] = (REAL)((double)y[i] - sum);
        return;
    }
    w->node->functions->activate(FASTGRU_exponential, 0, n, y, y);
    sum = 1 / TYPED(sum)(n, y);
    for (ptrdiff_t i = 0; i < n; ++i)
        y[i] = (REAL)((double)y[i] * sum);
}

/* y := the numbers of x with a mean of 0 and a variance of 1, scaled and shifted. */
static void TYPED(normalize)(const struct fastgru_node *node, ptrdiff_t n, const REAL *x, REAL *y)
{
    const REAL *factors = NUMBERS(node->weights), *shifts = NUMBERS(node->bias);
    const double mean = node->size == 1 ? 0 : TYPED(sum)(n, x) / (double)n;
    const double scale = 1 / root_of(TYPED(sum_of_squares)(n, x, mean) / (double)n + node->alpha);
    for (ptrdiff_t i = 0; i < n; ++i)
        y[i] = (REAL)(((double)x[i] - mean) * scale * (double)factors[i] + (shifts ? (double)shifts[i] : 0));
}

/* 1 if a number of the step is not alpha. */
static int TYPED(differs)(const struct work *w, const char *x)
{
    for (ptrdiff_t i = 0; i < w->x.width; ++i)
        if (NUMBERS(x)[i] != (REAL)w->node->alpha)
            return 1;
    return 0;
}

/* A step of a node. */
static void TYPED(step)(const struct work *w, const char *from, char *to)
{
    const struct fastgru_node *node = w->node;
    const ptrdiff_t n = w->out.width;
    const REAL *x = NUMBERS(from), *a = NUMBERS(node->weights), *b = NUMBERS(node->bias);
    REAL *y = (REAL *)(void *)to;
    switch (node->kind) {
    case FASTGRU_SOFTMAX:
    case FASTGRU_LOG_SOFTMAX:
        TYPED(softmax)(w, x, y);
        break;
    case FASTGRU_NORM:
        TYPED(normalize)(node, n, x, y);
        break;
    case FASTGRU_PRELU:
        for (ptrdiff_t i = 0; i < n; ++i)
            y[i] = x[i] >= 0 ? x[i] : x[i] * a[i];
        break;
    case FASTGRU_SCALE:
        for (ptrdiff_t i = 0; i < n; ++i)
            y[i] = x[i] * a[i] + b[i];
        break;
    default:                         /* FASTGRU_CLIP */
        for (ptrdiff_t i = 0; i < n; ++i) {
            const REAL most = (REAL)node->beta, least = (REAL)node->alpha;
            const REAL high = x[i] > most ? most : x[i];
            y[i] = high < least ? least : high;
        }
    }
}

/* ---- windows: each is started, added to and ended --------------------------------------------- */

static void TYPED(start_window)(const struct work *w, char *out)
{
    memset(out, 0, (size_t)w->out.width * sizeof(REAL));
}

/* Add position i, the `count`th of those that are not padding. */
static void TYPED(add_to_window)(const struct work *w, ptrdiff_t i, ptrdiff_t count, const char *from, char *out)
{
    const REAL *x = NUMBERS(from);
    const ptrdiff_t n = w->out.width;
    REAL *y = (REAL *)(void *)out;
    if (w->node->kind == FASTGRU_DEPTHWISE) {
        const REAL *weights = NUMBERS(w->node->weights) + i * n;
        const ptrdiff_t multiplier = n / w->x.width;
        for (ptrdiff_t j = 0; j < n; ++j)
            y[j] += x[multiplier == 1 ? j : j / multiplier] * weights[j];
    } else if (w->node->kind == FASTGRU_MEAN) {
        for (ptrdiff_t j = 0; j < n; ++j)
            y[j] += x[j];
    } else {
        for (ptrdiff_t j = 0; j < n; ++j)
            y[j] = !count || x[j] > y[j] || x[j] != x[j] ? x[j] : y[j];
    }
}

static void TYPED(end_window)(const struct work *w, ptrdiff_t count, char *out)
{
    const REAL *b = NUMBERS(w->node->bias);
    REAL *y = (REAL *)(void *)out;
    for (ptrdiff_t j = 0; w->node->kind == FASTGRU_MEAN && j < w->out.width; ++j)
        y[j] /= (REAL)count;
    if (w->node->kind != FASTGRU_DEPTHWISE)
        return;
    for (ptrdiff_t j = 0; b && j < w->out.width; ++j)
        y[j] += b[j];
    activate(w, w->out.width, out);
}

/* Add a step to sums over all of them, or to the largest so far. */
static void TYPED(pool)(const struct work *w, int is_first, const char *from, double *sums)
{
    const REAL *x = NUMBERS(from);
    for (ptrdiff_t i = 0; i < w->x.width; ++i) {
        if (w->node->kind == FASTGRU_MEAN)
            sums[i] += (double)x[i];
        else
            sums[i] = is_first || (double)x[i] > sums[i] || x[i] != x[i] ? (double)x[i] : sums[i];
    }
}

#undef NUMBERS
