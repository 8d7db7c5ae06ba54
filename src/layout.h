/* layout.h - where a layer's packed weights and a block's scratch lie in memory, and how a call is cut. One definition
 * for all instruction sets and dtypes. */

#ifndef FASTGRU_LAYOUT_H
#define FASTGRU_LAYOUT_H

#include "compiler.h"
#include "fastgru/network.h"

/* ---- packed weights -------------------------------------------------------------------- */

/* Everything begins at a cache line. */
static inline size_t fastgru_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static inline size_t fastgru_candidate_count(const struct fastgru_layer *layer)
{
    return layer->dense || layer->reset_after ? 0 : (layer->panel_count + 2) / 3;
}

/* Blocks of units, a vector each, that lie side by side in a panel of a dense layer: one, if that holds all units, or
 * three as the gates of a GRU. A layer of one unit would else take three times the room. */
static inline int fastgru_dense_blocks(const struct fastgru_layer *layer)
{
    return layer->units <= layer->kernels->vlen ? 1 : 3;
}

/* Biases; quantized, two more numbers follow them: the largest factors of x and of h. */
static inline size_t fastgru_bias_count(const struct fastgru_layer *layer)
{
    const int count = layer->dense ? fastgru_dense_blocks(layer) : 4;
    return layer->panel_count * (size_t)count * (size_t)layer->kernels->vlen;
}

enum {
    FASTGRU_QUANTIZED_HEAD = 4,      /* elements before the integers of a row of factors   */
    FASTGRU_MOST_FACTOR = 32639      /* 127 * 256 + 127: also of two signed bytes          */
};

/* Elements of a row of n factors: its scale, and int16 in groups of eight. */
static inline ptrdiff_t fastgru_quantized_width(ptrdiff_t n)
{
    return FASTGRU_QUANTIZED_HEAD + (n + 7) / 8 * 4;
}

/* Bytes of a panel of some gates of a matrix of k rows; quantized: groups of four, a scale and an offset each. */
static inline size_t fastgru_panel_part(const struct fastgru_format *kernels, ptrdiff_t k, int gates)
{
    const size_t rows = kernels->quantized ? (size_t)(k + 3) / 4 * 4 + 8 : (size_t)k;
    return rows * (size_t)gates * (size_t)kernels->vlen * kernels->weight_size;
}

/* Set where weights lie in `memory`, unless it is NULL. Returns the bytes of all. */
static inline size_t fastgru_lay_out(struct fastgru_layer *layer, char *memory)
{
    const struct fastgru_format *kernels = layer->kernels;
    const int blocks = layer->dense ? fastgru_dense_blocks(layer) : 1;
    const ptrdiff_t width = kernels->vlen * blocks;
    const size_t panels = (size_t)((layer->units + width - 1) / width);
    size_t biases, recurrent = 0;
    layer->panel_count = panels;
    biases = fastgru_lines((fastgru_bias_count(layer) + (kernels->quantized ? 2 : 0)) * kernels->itemsize);
    if (!layer->dense)
        recurrent = fastgru_panel_part(kernels, layer->units, layer->reset_after ? 3 : 2);
    layer->panel_bytes = fastgru_lines(fastgru_panel_part(kernels, layer->features, layer->dense ? blocks : 3) + recurrent);
    layer->candidate_bytes = fastgru_lines(fastgru_panel_part(kernels, layer->units, 3));
    if (memory) {
        layer->biases = memory;
        layer->panels = memory + biases;
        layer->candidates = layer->panels + panels * layer->panel_bytes;
    }
    return biases + panels * layer->panel_bytes + fastgru_candidate_count(layer) * layer->candidate_bytes;
}

/* A layer whose sizes are known, though it may not be packed yet. */
static inline struct fastgru_layer fastgru_laid_out(const struct fastgru_layer *layer)
{
    struct fastgru_layer copy = *layer;
    fastgru_lay_out(&copy, NULL);
    return copy;
}

/* ---- how a call is cut ------------------------------------------------------------------ */

/* Rows that go through all timesteps together, and steps whose x.kernel is computed ahead of them.
 *
 * Rows of different lengths are cut in another way: as long as more than `few` of them take part in a step, x.kernel is
 * computed in the step, where their x is first laid side by side; then for the few, row by row, `steps` steps ahead.
 * Fewer rows make up no tile, or wait for many weights (fastgru_steps_ahead has the figures). */
struct fastgru_blocks {
    ptrdiff_t rows;
    ptrdiff_t steps;                 /* 0: x.kernel is computed in each step               */
    ptrdiff_t few;                   /* lengths: most rows whose x.kernel is computed ahead */
    size_t xw_rows;                  /* rows of xw that there must be room for             */
};

enum {
    FASTGRU_BLOCK_ROWS = 128,        /* a multiple of 8, which every tile divides          */
    FASTGRU_CHUNK_BYTES = 256 << 10, /* of xw: as much as stays in the second-level cache  */
    FASTGRU_CHUNK_ROWS = 128,        /* or this many rows, to share one reading of the kernel */
    FASTGRU_CHUNK_MOST = 2 << 20,    /* bytes of those, at most                            */
    FASTGRU_PASSES = 8,              /* rows, or steps, of a chunk that share one reading  */
    FASTGRU_DENSE_ROWS = 64,         /* of one of them, in a dense layer                   */
    FASTGRU_FULL_TILE = 4,           /* rows                                               */
    FASTGRU_FEW_OF_SOME = 7,         /* rows that wait for the third-level cache, where there are ... */
    FASTGRU_SOME_BYTES = 2 << 20,    /* ... this many bytes of weights, or more            */
    FASTGRU_FEW_ROWS = 32,           /* rows that wait for memory, where there are ...     */
    FASTGRU_MANY_BYTES = 8 << 20,    /* ... this many                                      */
    FASTGRU_FETCH_BYTES = 3 << 10,   /* ahead of what is loaded                            */
    FASTGRU_SCRATCH_BYTES = 3 << 20, /* beyond it, fewer rows                              */
    FASTGRU_RAGGED_STEPS = 8         /* of few rows of different lengths at a time         */
};

/* Elements of x.kernel of a row: (panels, 3, vlen). */
static inline ptrdiff_t fastgru_sums_width(const struct fastgru_layer *layer)
{
    return (ptrdiff_t)layer->panel_count * 3 * layer->kernels->vlen;
}

/* Elements of a row of xw: that, and quantized the factors that x is multiplied as. */
static inline ptrdiff_t fastgru_xw_width(const struct fastgru_layer *layer)
{
    return fastgru_sums_width(layer)
        + (layer->kernels->quantized ? fastgru_quantized_width(layer->features) : 0);
}

static inline size_t fastgru_xw_bytes(const struct fastgru_layer *layer)
{
    return (size_t)fastgru_xw_width(layer) * layer->kernels->itemsize;
}

/* Elements of scratch that a row takes in a step; if any, it takes room for xw, too. */
static inline size_t fastgru_step_width(const struct fastgru_layer *layer)
{
    return (size_t)(layer->kernels->step_units[layer->reset_after != 0] * layer->units
                    + (layer->kernels->quantized ? fastgru_quantized_width(layer->units) : 0));
}

/* The most rows of a block, whose scratch has for each row: xw of a step, two states, each at most a third of that, and
 * what a step takes. */
static inline ptrdiff_t fastgru_block_rows(const struct fastgru_layer *layer)
{
    const size_t xw = fastgru_xw_bytes(layer), step = fastgru_step_width(layer) * layer->kernels->itemsize;
    const size_t row_bytes = xw + xw / 3 * 2 + (step > xw / 3 ? step : xw / 3);
    ptrdiff_t rows = FASTGRU_BLOCK_ROWS;
    while (rows > 8 && (size_t)rows * row_bytes > FASTGRU_SCRATCH_BYTES)
        rows -= 8;
    return rows;
}

/* The most rows of xw that are computed ahead. */
static inline size_t fastgru_rows_ahead(const struct fastgru_layer *layer)
{
    const size_t row_bytes = fastgru_xw_bytes(layer), least = FASTGRU_CHUNK_ROWS;
    const size_t rows = FASTGRU_CHUNK_BYTES / row_bytes, most = FASTGRU_CHUNK_MOST / row_bytes;
    return rows >= least ? rows : most < least ? most : least;
}

/* Bytes of the weights that a step reads. */
static inline size_t fastgru_weights(const struct fastgru_layer *layer)
{
    return layer->panel_count * layer->panel_bytes;
}

/* The rows that x.kernel ahead of the steps pays for; fastgru_steps_ahead has the figures. */
static inline ptrdiff_t fastgru_few_rows(const struct fastgru_layer *layer)
{
    const size_t bytes = fastgru_weights(layer);
    return bytes < FASTGRU_SOME_BYTES ? FASTGRU_FULL_TILE - 1
        : bytes < FASTGRU_MANY_BYTES ? FASTGRU_FEW_OF_SOME : FASTGRU_FEW_ROWS;
}

/* The steps whose x.kernel is computed ahead, 0 or at least two.
 *
 * Where rows make up full tiles, x.kernel ahead of the steps saves no multiplication, and its result goes through
 * memory. Where they do not, the rows of several steps together make up tiles that one step's do not; and few rows
 * wait for weights that are not in the second-level cache, half of which are the kernel's, read once for a chunk of
 * steps.
 *
 * Time with x.kernel in each step divided by that with it ahead, as many features as units, 20 steps (2026-11-30, Intel
 * Xeon, L2 of 2 MB, AVX2, float32; python -m benchmarks.engines --isa avx2, one engine with FASTGRU_FULL_TILE,
 * FASTGRU_FEW_OF_SOME and FASTGRU_FEW_ROWS of 1000, one with FASTGRU_CHUNK_ROWS and FASTGRU_CHUNK_BYTES of 0):
 *
 *     units           1     2     3     4     6     8     16    32 rows
 *     128, 0.4 MB     1.25  1.21  1.08  1.00  1.01  1.00  0.99  0.99
 *     256, 1.6 MB     1.39  1.30  1.17  1.03  1.13  1.07  1.02  1.04
 *     448, 4.8 MB     2.28  1.65  1.42  1.25  1.22  1.11  1.05  0.99
 *     640, 9.8 MB     1.94  1.65  1.45  1.37  1.21  1.13  1.02  1.05 */
static inline ptrdiff_t fastgru_steps_ahead(
    const struct fastgru_layer *layer, ptrdiff_t rows, ptrdiff_t timesteps)
{
    ptrdiff_t steps;
    if (timesteps < 2 || (layer->kernels->full_tile && rows > fastgru_few_rows(layer)))
        return 0;
    steps = rows ? (ptrdiff_t)fastgru_rows_ahead(layer) / rows : 0;
    steps = steps < timesteps ? steps : timesteps;
    return steps < 2 ? 0 : steps;
}

static inline struct fastgru_blocks fastgru_blocking(
    const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps)
{
    const ptrdiff_t most = batch <= 8 ? 8 : fastgru_block_rows(layer);
    struct fastgru_blocks b;
    b.rows = batch;
    if (most < batch) {
        const ptrdiff_t blocks = batch / most + (batch % most != 0);
        b.rows = (batch / blocks + (batch % blocks != 0) + 7) / 8 * 8;  /* of one size, nearly */
    }
    b.few = 0;
    b.steps = fastgru_steps_ahead(layer, b.rows, timesteps);
    b.xw_rows = (size_t)(b.steps ? b.steps : fastgru_step_width(layer) > 0) * (size_t)b.rows;
    return b;
}

/* The same for a call with lengths: at most 128 rows, and no fewer for a larger batch. */
static inline struct fastgru_blocks fastgru_ragged_blocking(
    const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps)
{
    const size_t x_bytes = (size_t)layer->features * layer->kernels->itemsize;
    const ptrdiff_t most = FASTGRU_RAGGED_STEPS;
    size_t once;
    struct fastgru_blocks b;
    b.rows = fastgru_block_rows(layer);
    while (b.rows > 8 && (size_t)b.rows * x_bytes > FASTGRU_CHUNK_MOST)
        b.rows -= 8;
    b.rows = batch < b.rows ? batch : b.rows;
    b.few = fastgru_weights(layer) >= FASTGRU_MANY_BYTES ? FASTGRU_PASSES : FASTGRU_FULL_TILE - 1;
    b.steps = (ptrdiff_t)(FASTGRU_CHUNK_MOST / (fastgru_xw_bytes(layer) * (size_t)b.few));
    b.steps = b.steps < 1 ? 1 : b.steps < most ? b.steps : most;
    b.steps = b.steps < timesteps ? b.steps : timesteps;
    b.few = b.rows < b.few ? b.rows : b.few;
    b.xw_rows = (size_t)b.few * (size_t)b.steps;
    once = fastgru_step_width(layer) ? (size_t)b.rows : 0;
    b.xw_rows = b.xw_rows > once ? b.xw_rows : once;
    return b;
}

/* Bytes of scratch that a dense layer takes: what its passes are multiplied as. */
static inline size_t fastgru_dense_scratch(const struct fastgru_layer *layer)
{
    return layer->kernels->quantized ? (size_t)fastgru_quantized_width(layer->features) * layer->kernels->itemsize
        * FASTGRU_PASSES * FASTGRU_DENSE_ROWS : 0;
}

/* ---- a block's scratch ------------------------------------------------------------------ */

/* Where its parts lie; if memory is NULL, only `bytes` has a meaning. */
struct fastgru_scratch {
    size_t bytes;
    char *states[2];                 /* (rows, units)  a spare one, and the last state if that is not wanted */
    char *step;                      /* (rows, step_width)                                 */
    char *xw;                        /* (xw_rows, panels, 3, vlen)                         */
    char *x;                         /* (rows, features)  with lengths                     */
    unsigned char *actions;          /* (rows)  without                                    */
    unsigned char *seen;             /* (rows)                                             */
};

static inline struct fastgru_scratch fastgru_lay_out_scratch(
    const struct fastgru_layer *layer, const struct fastgru_blocks *blocks, char *memory)
{
    const size_t rows = (size_t)blocks->rows, itemsize = layer->kernels->itemsize;
    const size_t state = fastgru_lines(rows * (size_t)layer->units * itemsize);
    const size_t step = fastgru_lines(rows * fastgru_step_width(layer) * itemsize);
    const size_t xw = fastgru_lines(blocks->xw_rows * fastgru_xw_bytes(layer));
    const size_t last = blocks->few ? (size_t)layer->features * itemsize : 2;  /* of a row: x, or its flags */
    const uintptr_t start = (uintptr_t)memory;
    struct fastgru_scratch s;
    s.bytes = 2 * state + step + xw + fastgru_lines(rows * last);
    s.states[0] = memory;
    s.states[1] = (char *)(start + state);
    s.step = (char *)(start + 2 * state);
    s.xw = (char *)(start + 2 * state + step);
    s.x = (char *)(start + 2 * state + step + xw);
    s.actions = (unsigned char *)s.x;
    s.seen = (unsigned char *)(start + 2 * state + step + xw + rows);
    return s;
}

/* ---- lengths ---------------------------------------------------------------------------- */

/* Sort lengths in descending order; rows of one length keep their order. */
HIDDEN void fastgru_order(
    ptrdiff_t rows,
    const ptrdiff_t *steps,          /* (rows)                                             */
    ptrdiff_t *lengths,              /* (2, rows)  overwritten: in order, and their rows   */
    ptrdiff_t *spare);               /* (2, rows)  overwritten                             */

/* ---- numbers ---------------------------------------------------------------------------- */

/* y := a + b, a * b and so on. */
HIDDEN void fastgru_merge(
    int kind,                        /* FASTGRU_SUM to FASTGRU_MIN                         */
    size_t itemsize,
    ptrdiff_t n,
    const void *a,                   /* (n)                                                */
    const void *b,                   /* (n)                                                */
    void *y);                        /* (n)  overwritten; may alias a or b                 */

#endif
