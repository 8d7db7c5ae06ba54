/* nodes.c - nodes other than GRUs: those that work step by step, those that read windows of steps, and those that read
 * a whole sequence. Sums have one order, and no multiply-add is fused, so that all instruction sets give the same
 * bits. */

#include <float.h>
#include <stdint.h>
#include <string.h>

#include "nodes.h"

enum {
    WINDOWS = 64,                    /* of a convolution, laid side by side                */
    CHAINS = 8                       /* of a sum                                           */
};


/* sqrt(x), x >= 0, to an ulp, with the same bits on every machine, which libm does not promise. */
static double root_of(double x)
{
    uint64_t bits;
    double y;
    if (!(x > 0 && x <= DBL_MAX))
        return x;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits >> 1) + ((uint64_t)0x1ff8 << 48);  /* half the exponent: right to a few percent */
    memcpy(&y, &bits, sizeof y);
    for (int i = 0; i < 5; ++i)
        y = (y + x / y) / 2;
    return y;
}

/* log(x), x >= 1, to an ulp or two, with the same bits on every machine. With x = m 2^e, m from 0.7 to 1.4, and
 * t = (m - 1) / (m + 1), it is e log(2) + 2 (t + t^3 / 3 + t^5 / 5 + ...). */
static double log_of(double x)
{
    uint64_t bits;
    double m, t, sum = 0;
    int exponent;
    if (!(x >= 1 && x <= DBL_MAX))
        return x;
    memcpy(&bits, &x, sizeof bits);
    exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | (uint64_t)1023 << 52;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m /= 2;
        ++exponent;
    }
    t = (m - 1) / (m + 1);
    for (int i = 23; i > 0; i -= 2)  /* t is at most 0.172: what is left out is 1e-19 */
        sum = sum * t * t + 1.0 / i;
    return exponent * 0.69314718055994531 + 2 * t * sum;
}

/* The position of the element i of a node's arrays. */
static const char *element(const void *array, ptrdiff_t i, size_t itemsize)
{
    return (const char *)array + i * (ptrdiff_t)itemsize;
}

static void activate(const struct work *w, ptrdiff_t n, char *y)
{
    if (w->node->activation != FASTGRU_linear)
        w->node->functions->activate(w->node->activation, w->node->alpha, n, y, y);
}

#define REAL float
#define TYPED(name) name##_f32
#include "nodes_by_type.h"
#undef REAL
#undef TYPED
#define REAL double
#define TYPED(name) name##_f64
#include "nodes_by_type.h"
#undef REAL
#undef TYPED

/* ---- step by step -------------------------------------------------------------------------- */

/* The row of a table that an index names. The caller has checked the index, but another thread may have changed it since:
 * an index without a row gives row 0. */
static ptrdiff_t row_of(const struct fastgru_node *node, const char *x)
{
    int32_t index;
    memcpy(&index, x, sizeof index);
    if (node->from_end && index < 0)
        return index + node->limit < 0 ? 0 : index + node->limit;
    return index < 0 || index >= node->limit ? 0 : index;
}

static int is_nonzero(const char *x)
{
    int32_t index;
    memcpy(&index, x, sizeof index);
    return index != 0;
}

static int is_masked(const struct masking *mask, ptrdiff_t row, ptrdiff_t step)
{
    if (mask->bytes)
        return !mask->bytes[row * mask->batch_stride + step * mask->time_stride];
    return mask->lengths && mask->first + step >= mask->lengths[row];
}

/* One step of one row of a node that needs no other step. */
static void run_one(const struct work *w, ptrdiff_t row, ptrdiff_t step)
{
    const struct fastgru_node *node = w->node;
    const char *x = at(&w->x, row, step);
    char *out = at(&w->out, row, step);
    const size_t itemsize = w->out.itemsize, bytes = (size_t)w->out.width * itemsize;
    switch (node->kind) {
    case FASTGRU_CAST:
        fastgru_cast(w->out.width, x, w->x.itemsize, (ptrdiff_t)w->x.itemsize, out, itemsize);
        break;
    case FASTGRU_COPY:
        memcpy(out + node->column * (ptrdiff_t)itemsize, x + node->from * (ptrdiff_t)itemsize, (size_t)node->size * itemsize);
        break;
    case FASTGRU_EMBEDDING:
        memcpy(out, element(node->weights, row_of(node, x) * w->out.width, itemsize), bytes);
        break;
    case FASTGRU_DIFFERS:
        *out = (char)(w->x.itemsize == 4 ? differs_f32(w, x) : differs_f64(w, x));
        break;
    case FASTGRU_NONZERO:
        *out = (char)is_nonzero(x);
        break;
    case FASTGRU_BOTH:
        *out = (char)(*x && *at(&w->y, row, step));
        break;
    case FASTGRU_EITHER:
        *out = (char)(*x || !is_masked(&w->mask, row, step));
        break;
    case FASTGRU_SELECT:
        memcpy(out, is_masked(&w->mask, row, step) ? at(&w->y, row, step) : x, bytes);
        break;
    case FASTGRU_HIDE:
        if (is_masked(&w->mask, row, step))
            memset(out, 0, bytes);
        else
            memcpy(out, x, bytes);
        break;
    case FASTGRU_REPEAT:
        memcpy(out, x, bytes);
        break;
    case FASTGRU_ACTIVATION:
        node->functions->activate(node->activation, node->alpha, w->out.width, x, out);
        break;
    default:
        if (node->kind <= FASTGRU_MIN)
            fastgru_merge(node->kind, itemsize, w->out.width, x, at(&w->y, row, step), out);
        else if (itemsize == 4)
            step_f32(w, x, out);
        else
            step_f64(w, x, out);
    }
}

/* 1 if the node treats each number alone, whatever its place. */
static int is_of_numbers(const struct fastgru_node *node)
{
    return (node->kind >= FASTGRU_CAST && node->kind <= FASTGRU_MIN) || node->kind == FASTGRU_ACTIVATION
        || node->kind == FASTGRU_CLIP;
}

/* If rows follow each other without a gap in all parts, treat them as one long row. */
static void join_rows(struct work *w)
{
    if (w->rows > 1 && w->x.batch_stride == w->out.width && w->y.batch_stride == w->out.width
            && w->out.batch_stride == w->out.width) {
        w->out.width *= w->rows;
        w->rows = 1;
    }
}

/* The same for steps. */
static void join_steps(struct work *w)
{
    if (w->steps > 1 && w->x.time_stride == w->out.width && w->y.time_stride == w->out.width
            && w->out.time_stride == w->out.width) {
        w->out.width *= w->steps;
        w->steps = 1;
    }
}

/* A node that treats each number alone: as few long rows as there are. */
static void run_numbers(const struct work *work)
{
    struct work w = *work;
    join_rows(&w);
    join_steps(&w);
    join_rows(&w);
    for (ptrdiff_t row = 0; row < w.rows; ++row)
        for (ptrdiff_t step = 0; step < w.steps; ++step)
            run_one(&w, row, step);
}

/* ---- products ------------------------------------------------------------------------------ */

static void run_dense(const struct work *w)
{
    const struct fastgru_layer *layer = w->node->layer;
    struct fastgru_projection projection;
    memset(&projection, 0, sizeof projection);
    projection.rows = w->rows;
    projection.steps = w->steps;
    projection.x = w->x.data;
    projection.x_batch_stride = w->x.batch_stride;
    projection.x_time_stride = w->x.time_stride;
    projection.xw = w->out.data;
    projection.xw_stride = w->out.batch_stride;
    projection.xw_time_stride = w->out.time_stride;
    layer->kernels->dense(layer, &projection, w->scratch);
    if (w->node->activation != FASTGRU_linear) {
        struct fastgru_node node;
        struct work all = *w;
        node.kind = FASTGRU_ACTIVATION;
        node.activation = w->node->activation;
        node.alpha = w->node->alpha;
        node.functions = w->node->functions;
        all.node = &node;
        all.x = all.y = w->out;
        run_numbers(&all);
    }
}

/* ---- windows ------------------------------------------------------------------------------- */

/* Steps of padding before the first one. */
static ptrdiff_t padding_before(const struct work *w)
{
    const struct fastgru_node *node = w->node;
    const ptrdiff_t span = (node->size - 1) * node->dilation + 1;
    const ptrdiff_t reach = (w->steps - 1) * node->stride + span - w->x_steps;
    if (node->padding == FASTGRU_CAUSAL)
        return span - 1;
    return node->padding == FASTGRU_SAME && reach > 0 ? reach / 2 : 0;
}

/* What position i of the window of a step reads of a row, (width); NULL: padding. */
static const char *in_window(const struct work *w, ptrdiff_t before, ptrdiff_t row, ptrdiff_t step, ptrdiff_t i)
{
    const struct fastgru_node *node = w->node;
    const ptrdiff_t from = step * node->stride + i * node->dilation - before, past = fastgru_past(node);
    if (from >= 0)
        return from < w->x_steps ? at(&w->x, row, from) : NULL;
    return w->past ? w->past + (row * past + past + from) * w->x.width * (ptrdiff_t)w->x.itemsize : NULL;
}

/* Keep the last steps for the windows of the next chunk. */
static void remember(const struct work *w)
{
    const ptrdiff_t past = fastgru_past(w->node), bytes = w->x.width * (ptrdiff_t)w->x.itemsize;
    const ptrdiff_t kept = past > w->x_steps ? past - w->x_steps : 0;
    for (ptrdiff_t row = 0; row < w->rows; ++row) {
        char *memory = w->past + row * past * bytes;
        memmove(memory, memory + (past - kept) * bytes, (size_t)(kept * bytes));
        for (ptrdiff_t i = kept; i < past; ++i)
            memcpy(memory + i * bytes, at(&w->x, row, w->x_steps - past + i), (size_t)bytes);
    }
}

/* Lay the windows of some steps of some rows side by side: (rows, steps, size, width). */
static void lay_windows(
    const struct work *w, ptrdiff_t before, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t step, ptrdiff_t steps)
{
    const ptrdiff_t bytes = w->x.width * (ptrdiff_t)w->x.itemsize;
    char *to = w->scratch;
    for (ptrdiff_t r = row; r < row + rows; ++r)
        for (ptrdiff_t s = step; s < step + steps; ++s)
            for (ptrdiff_t i = 0; i < w->node->size; ++i, to += bytes) {
                const char *x = in_window(w, before, r, s, i);
                if (x)
                    memcpy(to, x, (size_t)bytes);
                else
                    memset(to, 0, (size_t)bytes);
            }
}

/* The steps whose windows lie in one piece in x: from the first to the one before `end`. */
struct pieces {
    ptrdiff_t first;
    ptrdiff_t end;
};

static struct pieces in_one_piece(const struct work *w, ptrdiff_t before)
{
    const struct fastgru_node *node = w->node;
    const ptrdiff_t last = w->x_steps + before - node->size;  /* step of x, moved by `before`      */
    struct pieces pieces = {0, 0};
    if (w->x.time_stride == w->x.width && node->dilation == 1 && last >= 0) {
        pieces.first = (before + node->stride - 1) / node->stride;
        pieces.end = last / node->stride + 1 < w->steps ? last / node->stride + 1 : w->steps;
        pieces.end = pieces.end > pieces.first ? pieces.end : pieces.first;
    }
    return pieces;
}

/* A convolution: a dense layer of windows. Those that lie in one piece are read where they are; of the others as many
 * as there is room for are laid side by side, along the longer of both axes. */
static void run_convolution(const struct work *w)
{
    const struct fastgru_node *node = w->node;
    const ptrdiff_t before = padding_before(w), width = node->size * w->x.width;
    const struct pieces pieces = in_one_piece(w, before);
    const int by_rows = w->rows >= w->steps;
    const ptrdiff_t count = by_rows ? w->steps : w->rows, length = by_rows ? w->rows : w->steps;
    ptrdiff_t taken;
    struct work part = *w;
    part.scratch = w->scratch + fastgru_lines((size_t)(WINDOWS * width) * w->x.itemsize);
    if (pieces.first < pieces.end) {
        part.steps = pieces.end - pieces.first;
        part.x.data = at(&w->x, 0, pieces.first * node->stride - before);
        part.x.time_stride = node->stride * w->x.width;
        part.out.data = at(&w->out, 0, pieces.first);
        run_dense(&part);
    }
    part.x.data = w->scratch;
    part.x.batch_stride = part.x.time_stride = width;
    for (ptrdiff_t i = 0; i < count; ++i)
        for (ptrdiff_t first = 0; first < length; first += taken) {
            const ptrdiff_t step = by_rows ? i : first, row = by_rows ? first : i, left = length - first;
            if (step >= pieces.first && step < pieces.end) {  /* has been computed                  */
                taken = by_rows ? left : pieces.end - step;
                continue;
            }
            taken = left < WINDOWS ? left : WINDOWS;
            if (!by_rows && step < pieces.first && step + taken > pieces.first)
                taken = pieces.first - step;
            part.rows = by_rows ? taken : 1;
            part.steps = by_rows ? 1 : taken;
            lay_windows(w, before, row, part.rows, step, part.steps);
            part.out.data = at(&w->out, row, step);
            run_dense(&part);
        }
}

/* Depthwise convolutions and pooling, of one window. */
static void run_window(const struct work *w, ptrdiff_t before, ptrdiff_t row, ptrdiff_t step)
{
    const struct fastgru_node *node = w->node;
    const ptrdiff_t first = w->past ? 0 : before - step * node->stride;  /* of x, in steps from the window's start */
    const ptrdiff_t skipped = first > 0 ? (first + node->dilation - 1) / node->dilation : 0;
    char *out = at(&w->out, row, step);
    ptrdiff_t count = 0;
    if (w->out.itemsize == 4)
        start_window_f32(w, out);
    else
        start_window_f64(w, out);
    for (ptrdiff_t i = skipped; i < node->size; ++i) {
        const char *x = in_window(w, before, row, step, i);
        if (!x)
            break;                   /* after the last step                                */
        if (w->out.itemsize == 4)
            add_to_window_f32(w, i, count, x, out);
        else
            add_to_window_f64(w, i, count, x, out);
        ++count;
    }
    if (w->out.itemsize == 4)
        end_window_f32(w, count, out);
    else
        end_window_f64(w, count, out);
}

/* ---- whole sequences ----------------------------------------------------------------------- */

static void run_pool(const struct work *w, ptrdiff_t row)
{
    double *sums = (double *)(void *)w->scratch;
    double count = 0;
    memset(sums, 0, (size_t)w->x.width * sizeof *sums);
    for (ptrdiff_t step = 0; step < w->x_steps; ++step) {
        if (w->node->kind == FASTGRU_MEAN && is_masked(&w->mask, row, step))
            continue;
        if (w->x.itemsize == 4)
            pool_f32(w, count == 0, at(&w->x, row, step), sums);
        else
            pool_f64(w, count == 0, at(&w->x, row, step), sums);
        ++count;
    }
    for (ptrdiff_t i = 0; w->node->kind == FASTGRU_MEAN && i < w->x.width; ++i)
        sums[i] /= count;
    fastgru_cast(w->x.width, sums, sizeof *sums, sizeof *sums, at(&w->out, row, 0), w->out.itemsize);
}

/* The numbers of a row in their order, or with timesteps and features exchanged. */
static void run_reshape(const struct work *w, ptrdiff_t row)
{
    const ptrdiff_t itemsize = (ptrdiff_t)w->x.itemsize;
    const int exchanges = w->node->kind == FASTGRU_TRANSPOSE;
    ptrdiff_t step = 0, column = 0;  /* of the output */
    for (ptrdiff_t t = 0; t < w->x_steps; ++t)
        for (ptrdiff_t i = 0; i < w->x.width; ++i) {
            if (exchanges)
                step = i, column = t;
            memcpy(at(&w->out, row, step) + column * itemsize, at(&w->x, row, t) + i * itemsize, (size_t)itemsize);
            if (++column == w->out.width)
                column = 0, ++step;
        }
}

/* ---- all ------------------------------------------------------------------------------------ */

size_t fastgru_node_scratch(const struct fastgru_node *node, ptrdiff_t width, size_t itemsize)
{
    switch (node->kind) {
    case FASTGRU_DENSE:
        return fastgru_dense_scratch(node->layer);
    case FASTGRU_CONVOLUTION: {
        const size_t row = fastgru_product(fastgru_product((size_t)node->size, (size_t)width), itemsize);
        const size_t windows = fastgru_product(WINDOWS, row);
        return windows == FASTGRU_TOO_LARGE ? windows : fastgru_lines(windows) + fastgru_dense_scratch(node->layer);
    }
    case FASTGRU_MEAN:
    case FASTGRU_MOST:
        return fastgru_product((size_t)width, sizeof(double));
    default:
        return 0;
    }
}

void fastgru_run_node(const struct work *w)
{
    const int kind = w->node->kind;
    const ptrdiff_t before = has_windows(w->node) ? padding_before(w) : 0;
    if (kind == FASTGRU_DENSE) {
        run_dense(w);
    } else if (kind == FASTGRU_CONVOLUTION) {
        run_convolution(w);
    } else if (is_of_numbers(w->node)) {
        run_numbers(w);
    } else {
        for (ptrdiff_t row = 0; row < w->rows; ++row) {
            if (kind == FASTGRU_RESHAPE || kind == FASTGRU_TRANSPOSE)
                run_reshape(w, row);
            else if ((kind == FASTGRU_MEAN || kind == FASTGRU_MOST) && !w->node->size)
                run_pool(w, row);
            else if (kind == FASTGRU_FIRST)
                memcpy(at(&w->out, row, 0), at(&w->x, row, 0), (size_t)w->x.width * w->x.itemsize);
            else if (kind == FASTGRU_LAST)
                memcpy(at(&w->out, row, 0), at(&w->x, row, w->x_steps - 1), (size_t)w->x.width * w->x.itemsize);
            else
                for (ptrdiff_t step = 0; step < w->steps; ++step) {
                    if (has_windows(w->node))
                        run_window(w, before, row, step);
                    else
                        run_one(w, row, step);
                }
        }
    }
    if (w->past)
        remember(w);
}
