/* layout.h - where a layer's packed weights lie in memory, how a call is cut, and what a pass over the weights is
 * for. One definition for all instruction sets and dtypes. */

#ifndef FASTGRU_LAYOUT_H
#define FASTGRU_LAYOUT_H

#include "compiler.h"
#include "fastgru/fastgru.h"

/* ---- packed weights -------------------------------------------------------------------- */

/* Everything begins at a cache line. */
static inline size_t fastgru_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static inline size_t fastgru_panel_count(const struct fastgru_layer *layer)
{
    return (size_t)((layer->units + layer->kernels->vlen - 1) / layer->kernels->vlen);
}

static inline size_t fastgru_candidate_count(const struct fastgru_layer *layer)
{
    return layer->reset_after ? 0 : (fastgru_panel_count(layer) + 2) / 3;
}

/* Where in `memory` weights lie, unless it is NULL; returns the bytes of all. */
static inline size_t fastgru_lay_out(struct fastgru_layer *layer, char *memory)
{
    const struct fastgru_packed_kernels *kernels = layer->kernels;
    const size_t rows = (size_t)layer->features * 3 + (size_t)layer->units * (layer->reset_after ? 3 : 2);
    const size_t vector = (size_t)kernels->vlen * kernels->weight_size, panels = fastgru_panel_count(layer);
    const size_t biases = fastgru_lines(panels * 4 * (size_t)kernels->vlen * kernels->itemsize);
    layer->panel_bytes = fastgru_lines(rows * vector);
    layer->candidate_bytes = fastgru_lines((size_t)layer->units * 3 * vector);
    if (memory) {
        layer->biases = memory;
        layer->panels = memory + biases;
        layer->candidates = layer->panels + panels * layer->panel_bytes;
    }
    return biases + panels * layer->panel_bytes + fastgru_candidate_count(layer) * layer->candidate_bytes;
}

/* ---- how a call is cut ------------------------------------------------------------------ */

/* Rows that go through all timesteps together, and steps whose x.kernel is computed ahead of them, none if it is
 * computed in each step. */
struct fastgru_blocks {
    ptrdiff_t rows;
    ptrdiff_t steps;
    size_t state_bytes;              /* (rows, units)                                      */
    size_t xw_bytes;                 /* (steps, rows, panels, 3, vlen)                     */
};

enum {
    FASTGRU_BLOCK_ROWS = 128,        /* a multiple of 8, which every tile divides          */
    FASTGRU_CHUNK_BYTES = 256 << 10, /* of xw: as much as stays in the second-level cache  */
    FASTGRU_CHUNK_ROWS = 128,        /* or this many rows, to share one reading of the kernel */
    FASTGRU_CHUNK_MOST = 2 << 20,    /* bytes of those, at most                            */
    FASTGRU_PASSES = 8,              /* rows, or steps, of a chunk that share one reading  */
    FASTGRU_FULL_TILE = 3,           /* rows                                               */
    FASTGRU_FEW_OF_SOME = 7,         /* rows that wait for a cache where there are ...     */
    FASTGRU_SOME_BYTES = 2 << 20,    /* ... this many bytes of weights, or more            */
    FASTGRU_FEW_ROWS = 32,           /* they wait for memory where there are ...           */
    FASTGRU_MANY_BYTES = 8 << 20,    /* ... this many                                      */
    FASTGRU_FETCH_BYTES = 3 << 10,   /* ahead of what is loaded                            */
    FASTGRU_SCRATCH_BYTES = 3 << 20, /* beyond it, fewer rows                              */
    FASTGRU_RAGGED_STEPS = 8         /* of few rows of different lengths at a time         */
};

/* Bytes of a row of xw: (panels, 3, vlen). */
static inline size_t fastgru_xw_bytes(const struct fastgru_layer *layer)
{
    return fastgru_panel_count(layer) * 3 * (size_t)layer->kernels->vlen * layer->kernels->itemsize;
}

/* The most rows of a block: a step of xw for each, and at most three states, which are no longer together. */
static inline ptrdiff_t fastgru_block_rows(const struct fastgru_layer *layer)
{
    ptrdiff_t rows = FASTGRU_BLOCK_ROWS;
    while (rows > 8 && (size_t)rows * 2 * fastgru_xw_bytes(layer) > FASTGRU_SCRATCH_BYTES)
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

static inline int fastgru_many_weights(const struct fastgru_layer *layer)
{
    return fastgru_panel_count(layer) * layer->panel_bytes >= FASTGRU_MANY_BYTES;
}

/* The rows that x.kernel ahead of the steps pays for; fastgru_steps_ahead has the figures. */
static inline ptrdiff_t fastgru_few_rows(const struct fastgru_layer *layer)
{
    const size_t bytes = fastgru_panel_count(layer) * layer->panel_bytes;
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
 * Time with x.kernel in each step by the time with x.kernel ahead (2026-11-30, Sapphire Rapids, L2 of 2 MB, AVX2,
 * float32; python -m benchmarks.engines --isa avx2, one engine with FASTGRU_FULL_TILE, FASTGRU_FEW_OF_SOME and
 * FASTGRU_FEW_ROWS of 1000, one with FASTGRU_CHUNK_ROWS and FASTGRU_CHUNK_BYTES of 0):
 *
 *     weights \ rows  1, 2          3     4     5     6     7     8     12    16    24    32
 *     up to 0.5 MB    0.99 to 1.06  0.93  0.93  0.95  0.94  0.92  0.91  0.94  0.94  0.94  0.94
 *     1.4 MB          1.20 to 1.24  0.98  0.97  0.99  0.96  1.00  0.99  1.01  1.01  1.03  1.04
 *     2.2 to 5.0 MB   1.42 to 2.48  1.27  1.14  1.12  1.11  1.06  1.04  1.02  1.01  1.04  1.00
 *     8.9 MB          1.42 to 1.74  1.56  1.24  1.27  0.97  1.03  1.13  1.02  1.03  1.01  0.98 */
static inline ptrdiff_t fastgru_steps_ahead(
    const struct fastgru_layer *layer, ptrdiff_t rows, ptrdiff_t timesteps)
{
    ptrdiff_t steps;
    if (rows > fastgru_few_rows(layer))
        return 0;
    steps = rows ? (ptrdiff_t)fastgru_rows_ahead(layer) / rows : 0;
    steps = steps < timesteps ? steps : timesteps;
    return steps < 2 ? 0 : steps;
}

/* Bytes of the state of some rows. A block needs two or three: the other one of two that alternate, one in place of a
 * last state that is not wanted, and reset before r * h. */
static inline size_t fastgru_state_bytes(const struct fastgru_layer *layer, ptrdiff_t rows)
{
    return fastgru_lines((size_t)rows * (size_t)layer->units * layer->kernels->itemsize);
}

static inline struct fastgru_blocks fastgru_blocking(
    const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps)
{
    const size_t row_bytes = fastgru_xw_bytes(layer);
    struct fastgru_blocks b;
    b.rows = fastgru_block_rows(layer);
    if (b.rows < batch) {
        const ptrdiff_t blocks = batch / b.rows + (batch % b.rows != 0);
        b.rows = (batch / blocks + (batch % blocks != 0) + 7) / 8 * 8;  /* of one size, nearly */
    } else {
        b.rows = batch;
    }
    b.steps = fastgru_steps_ahead(layer, b.rows, timesteps);
    b.state_bytes = fastgru_state_bytes(layer, b.rows);
    b.xw_bytes = fastgru_lines((size_t)(b.steps ? b.steps : !layer->reset_after) * (size_t)b.rows * row_bytes);
    return b;
}

/* How a call with lengths is cut: blocks of rows, as long as more than `few` of them take part in a step, with
 * x.kernel in the step, where their x is first laid side by side; then the few, row by row, with x.kernel of
 * `steps` steps ahead. Fewer rows make up no tile, or wait for many weights (fastgru_steps_ahead has the figures). */
struct fastgru_ragged {
    ptrdiff_t rows;                  /* at most 128; grows with the batch                  */
    ptrdiff_t few;
    ptrdiff_t steps;
    size_t state_bytes;              /* (rows, units)                                      */
    size_t xw_bytes;                 /* (few, steps, panels, 3, vlen); reset before (rows, panels, 3, vlen), too */
    size_t x_bytes;                  /* (rows, features)                                   */
};

static inline struct fastgru_ragged fastgru_ragged_blocking(
    const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps)
{
    const size_t row_bytes = fastgru_xw_bytes(layer);
    const size_t x_bytes = (size_t)layer->features * layer->kernels->itemsize;
    const ptrdiff_t few = FASTGRU_PASSES, less = FASTGRU_FULL_TILE - 1, most = FASTGRU_RAGGED_STEPS;
    size_t ahead, once;
    struct fastgru_ragged b;
    b.rows = fastgru_block_rows(layer);
    while (b.rows > 8 && (size_t)b.rows * x_bytes > FASTGRU_CHUNK_MOST)
        b.rows -= 8;
    b.rows = batch < b.rows ? batch : b.rows;
    b.few = fastgru_many_weights(layer) ? few : less;
    b.steps = (ptrdiff_t)(FASTGRU_CHUNK_MOST / (row_bytes * (size_t)b.few));
    b.steps = b.steps < 1 ? 1 : b.steps < most ? b.steps : most;
    b.steps = b.steps < timesteps ? b.steps : timesteps;
    b.few = b.rows < b.few ? b.rows : b.few;
    b.state_bytes = fastgru_state_bytes(layer, b.rows);
    ahead = (size_t)b.few * (size_t)b.steps * row_bytes;
    once = layer->reset_after ? 0 : (size_t)b.rows * row_bytes;
    b.xw_bytes = fastgru_lines(ahead > once ? ahead : once);
    b.x_bytes = fastgru_lines((size_t)b.rows * x_bytes);
    return b;
}

/* ---- a pass ---------------------------------------------------------------------------- */

/* What a row does in a step: compute, or, masked, keep its state and put out that or zeros. */
enum fastgru_row_action { FASTGRU_ROW_STEPS, FASTGRU_ROW_KEEPS, FASTGRU_ROW_ZEROES };

/* One pass over the packed weights: x.kernel of some rows, or one timestep of them. */
struct fastgru_pass {
    ptrdiff_t rows;
    ptrdiff_t x_rows;                /* all rows, whose x is read; or none: xw holds x.kernel + bias */
    const void *x;                   /* (x_rows, features)                                 */
    ptrdiff_t x_stride;
    void *xw;                        /* (rows, panels, 3, vlen)  in, overwritten or scratch */
    ptrdiff_t xw_stride;
    const void *h;                   /* (rows, units)      state before the step           */
    void *h_next;                    /* (rows, units)      overwritten; must not alias h   */
    void *rh;                        /* (rows, units)      reset before: scratch           */
    void *out;                       /* (rows, units)      overwritten; or NULL            */
    ptrdiff_t out_stride;
    const ptrdiff_t *out_rows;       /* (rows)             the row of out of each; NULL: its own */
    const unsigned char *actions;    /* (rows)             fastgru_row_action; NULL: all step */
    int out_of_cache;                /* 1 if the weights are in memory rather than in a cache */
    int backwards;                   /* 1 from the last panel to the first                 */
};

/* Put lengths in order, the most first, rows of one length as they come. */
HIDDEN void fastgru_order(
    ptrdiff_t rows,
    const ptrdiff_t *steps,          /* (rows)                                             */
    ptrdiff_t *lengths,              /* (2, rows)  overwritten: in order, and their rows   */
    ptrdiff_t *spare);               /* (2, rows)  overwritten                             */

#endif
