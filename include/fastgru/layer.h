/* layer.h - what the engine's functions are handed: a layer, a call, a pass; and where its parts lie in memory.
 *
 * Included by engine.h. One definition for all instruction sets and dtypes: hence arrays are void, and
 * hold the dtype of the kernels that they are given to. */

#ifndef FASTGRU_LAYER_H
#define FASTGRU_LAYER_H

#include <stddef.h>

/* name in Python, formula; `a` is the parameter of the activation where it has one */
#define FASTGRU_ACTIVATIONS(X)                                                    \
    X(linear)            /* x                                                  */ \
    X(tanh)              /* (e^2x - 1) / (e^2x + 1)                            */ \
    X(sigmoid)           /* 1 / (1 + e^-x)                                     */ \
    X(hard_sigmoid)      /* 0.2 x + 0.5 between 0 and 1                        */ \
    X(clipped_line)      /* a x + 0.5 between 0 and 1                          */ \
    X(relu)              /* max(0, x)                                          */ \
    X(relu6)             /* min(max(0, x), 6)                                  */ \
    X(leaky_relu)        /* x where x >= 0, else a x                           */ \
    X(thresholded_relu)  /* x where x > a, else 0                              */ \
    X(elu)               /* x where x > 0, else a (e^x - 1)                    */ \
    X(selu)              /* 1.0507 x where x > 0, else 1.7581 (e^x - 1)        */ \
    X(gelu)              /* x (1 + erf(c x)) / 2, c = 0.5^0.5 as a float32     */ \
    X(swish)             /* x / (1 + e^-x)                                     */ \
    X(mish)              /* x tanh(log(1 + e^x))                               */ \
    X(softplus)          /* log(1 + e^x)                                       */ \
    X(softsign)          /* x / (1 + |x|)                                      */ \
    X(exponential)       /* e^x                                                */

enum fastgru_activation {
#define FASTGRU_ROW(name) FASTGRU_##name,
    FASTGRU_ACTIVATIONS(FASTGRU_ROW)
#undef FASTGRU_ROW
    FASTGRU_ACTIVATION_COUNT
};

static const char *const fastgru_activation_names[FASTGRU_ACTIVATION_COUNT] = {
#define FASTGRU_ROW(name) #name,
    FASTGRU_ACTIVATIONS(FASTGRU_ROW)
#undef FASTGRU_ROW
};

/* ---- a layer, packed ---------------------------------------------------------------- */

struct fastgru_packed_kernels;

/* What a layer computes and with which kernels, set by the caller; and its packed weights, set by
 * fastgru_pack. Read-only from then on: any number of threads may share it. */
struct fastgru_layer {
    const struct fastgru_packed_kernels *kernels;  /* f32, f64 or f16 of an instruction set */
    ptrdiff_t features;
    ptrdiff_t units;
    int reset_after;
    int activation;                  /* g and its parameter                                */
    int recurrent_activation;        /* f and its parameter                                */
    double alpha;
    double recurrent_alpha;

    const void *biases;              /* (panels, 4, vlen)  z, r, candidate, its recurrent  */
    const char *panels;              /* panels of (features, 3, vlen) and (units, 3, vlen), reset
                                        before (units, 2, vlen): gates side by side        */
    const char *candidates;          /* reset before: panels of (units, 3, vlen), three
                                        neighbouring blocks of units side by side          */
    size_t panel_bytes;
    size_t candidate_bytes;
};

/* Some timesteps of some rows. Arrays hold the kernels' dtype; strides count elements, and
 * the last axis lies side by side. */
struct fastgru_call {
    ptrdiff_t batch;
    ptrdiff_t timesteps;
    const void *x;                   /* (batch, timesteps, features)                       */
    ptrdiff_t x_batch_stride;
    ptrdiff_t x_time_stride;
    const void *initial_state;       /* (batch, units)     NULL: zeros; may be `state`     */
    void *state;                     /* (batch, units)     overwritten: after the last step;
                                        or NULL                                            */
    void *out;                       /* (batch, timesteps, units)  overwritten, in the order of
                                        the run; or NULL                                   */
    ptrdiff_t out_batch_stride;
    ptrdiff_t out_time_stride;       /* 0: of all steps the last one's output stays        */
    const unsigned char *mask;       /* (batch, timesteps) 0: the row keeps its state; or NULL */
    ptrdiff_t mask_batch_stride;
    ptrdiff_t mask_time_stride;
    const ptrdiff_t *lengths;        /* (batch)  steps that rows have, the most first: at the others
                                        they are masked; then there is no mask; or NULL    */
    const ptrdiff_t *rows;           /* (batch)  which row each of these lengths is of     */
    int go_backwards;
    int zero_output_for_mask;
    unsigned turn;                   /* in and out: hand a stream's next call what this one left,
                                        and it starts where weights are still in the cache;
                                        any value gives the same bits                      */
    void *scratch;                   /* fastgru_scratch_size bytes, with lengths fastgru_ragged_scratch_size;
                                        aligned to 64                                      */
};

/* Kernels for one instruction set, dtype and type of weights. */
struct fastgru_packed_kernels {
    size_t itemsize;                 /* bytes of an element of all arrays                  */
    size_t weight_size;              /* bytes of a packed weight                           */
    ptrdiff_t vlen;                  /* units that are computed side by side               */
    void (*pack)(const struct fastgru_layer *, const void *kernel, const void *recurrent_kernel,
                 const void *bias);
    void (*sequence)(const struct fastgru_layer *, struct fastgru_call *);
};

/* ---- the elementwise half of a step, for products that come from elsewhere ----------- */

/* One timestep of `rows` rows. Arrays hold the kernel's dtype; strides count elements from
 * row to row, and within a row the elements lie side by side, gates in the order z r h. */
struct fastgru_gates {
    ptrdiff_t rows;
    ptrdiff_t units;
    int activation;                  /* g and its parameter                                */
    int recurrent_activation;        /* f and its parameter                                */
    double alpha;
    double recurrent_alpha;
    const void *bias;                /* (3 * units)        added to xw; reset after: z and r
                                        with the recurrent bias in it                      */
    const void *recurrent_bias;      /* (units)            bh; reset after only            */
    void *xw;                        /* (rows, 3 * units)  x.kernel; reset before: its r columns
                                        hold (r * h).Uh when gates_update comes to them    */
    ptrdiff_t xw_stride;
    void *hu;                        /* (rows, 3 * units)  h.recurrent_kernel; reset before:
                                        (rows, 2 * units)  its z and r columns, the latter
                                        replaced by r * h in gates_reset                   */
    void *h;                         /* (rows, units)      in: state, out: the next state  */
    void *out;                       /* (rows, units)      overwritten; NULL: not wanted   */
    ptrdiff_t out_stride;
    const unsigned char *mask;       /* (rows)             0: the row keeps its state; NULL:
                                        no row is masked                                   */
    ptrdiff_t mask_stride;
    unsigned char *seen;             /* (rows)             in and out: 1 once the row has had
                                        a step that was not masked                         */
    int zero_output_for_mask;
};

typedef void (*fastgru_gates_kernel)(const struct fastgru_gates *step);

/* y = f(x), elementwise; y may be x. */
typedef void (*fastgru_activate)(
    int activation, double alpha,
    ptrdiff_t n,
    const void *x,                   /* (n) */
    void *y);                        /* (n)  overwritten */

struct fastgru_functions {
    fastgru_gates_kernel gates_reset_after; /* the whole step after xw and hu              */
    fastgru_gates_kernel gates_reset;       /* reset before: r * h                         */
    fastgru_gates_kernel gates_update;      /* reset before: the rest, after (r * h).Uh    */
    fastgru_activate activate;
};

/* ---- what a core can do at best ------------------------------------------------------ */

#define FASTGRU_CHAINS 12            /* vectors in registers: more than a multiply-add's latency can hold up */

struct fastgru_roofline {
    float (*multiply_adds)(ptrdiff_t turns);  /* of 2 * FASTGRU_CHAINS * vlen operations             */
    float (*reads)(
        const float *memory,         /* (blocks, FASTGRU_CHAINS, vlen)                     */
        ptrdiff_t blocks, ptrdiff_t turns);
};

/* ---- the table of kernels ------------------------------------------------------------ */

/* One instruction set. */
struct fastgru_kernels {
    const char *isa;
    int fused;                       /* multiply-adds round once: the same bits as on all such sets */
    struct fastgru_packed_kernels f32;
    struct fastgru_packed_kernels f64;
    struct fastgru_packed_kernels f16;       /* float16 weights, float32 all else; sequence NULL: none  */
    struct fastgru_functions f32_functions;
    struct fastgru_functions f64_functions;
    struct fastgru_roofline roofline;        /* on float32 */
};

/* ---- memory -------------------------------------------------------------------------- */

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

/* How a call is cut: rows that go through all timesteps together, and steps whose x.kernel is computed ahead
 * of them, none if it is computed in each step. */
struct fastgru_blocks {
    ptrdiff_t rows;
    ptrdiff_t steps;
    size_t state_bytes;              /* (rows, units)                                      */
    size_t xw_bytes;                 /* (steps, rows, panels, 3, vlen)                     */
};

enum {
    FASTGRU_BLOCK_ROWS = 128,        /* a multiple of 8, which every tile divides          */
    FASTGRU_CHUNK_BYTES = 256 << 10, /* of xw: as much as stays in the second-level cache  */
    FASTGRU_CHUNK_ROWS = 128,        /* or so many rows, which reading the kernel is spread over */
    FASTGRU_CHUNK_MOST = 2 << 20,    /* bytes of those, at most                            */
    FASTGRU_PASSES = 8,              /* rows, or steps, of a chunk that share one reading  */
    FASTGRU_FULL_TILE = 4,           /* rows                                               */
    FASTGRU_FEW_ROWS = 32,           /* they wait for ...                                  */
    FASTGRU_MANY_BYTES = 8 << 20,    /* ... so many weights                                */
    FASTGRU_FETCH_BYTES = 3 << 10,   /* ahead of what is loaded from so many               */
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

/* The steps whose x.kernel is computed ahead, 0 or at least two.
 *
 * Where rows make up full tiles, x.kernel ahead of the steps saves no multiplication, and its result goes through
 * memory. Where they do not, the rows of several steps together make up tiles that one step's do not; and few rows
 * wait for weights that fill the third-level cache, half of which are the kernel's, read once for a chunk of steps.
 *
 * Time with x.kernel in each step by the time with x.kernel ahead, as many features as units (2026-11-28, AMD EPYC
 * Zen 3, AVX2, float32; python -m benchmarks.engines .:FASTGRU_FULL_TILE=1000
 * .:FASTGRU_CHUNK_ROWS=0,FASTGRU_CHUNK_BYTES=0):
 *
 *     rows           1             2, 3          4             5 to 8        12, 16        32, 64
 *     64 to 512      1.27 to 1.33  0.97 to 1.21  0.86 to 0.99  0.88 to 1.05  0.92 to 0.97  0.94 to 0.98
 *     768 to 1536    1.69 to 2.40  1.60 to 2.36  1.19 to 1.85  1.16 to 1.51  1.09 to 1.18  0.97 to 1.03 */
static inline ptrdiff_t fastgru_steps_ahead(
    const struct fastgru_layer *layer, ptrdiff_t rows, ptrdiff_t timesteps)
{
    ptrdiff_t steps;
    if (rows % FASTGRU_FULL_TILE == 0 && (rows > FASTGRU_FEW_ROWS || !fastgru_many_weights(layer)))
        return 0;
    steps = rows ? (ptrdiff_t)fastgru_rows_ahead(layer) / rows : 0;
    steps = steps < timesteps ? steps : timesteps;
    return steps < 2 ? 0 : steps;
}

/* Bytes of the state of so many rows. A block needs two or three: the other one of two in turn, one in place
 * of a last state that is not wanted, and reset before r * h. */
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

/* One pass over the packed weights: x.kernel of some rows, or one timestep of them. */
struct fastgru_pass {
    ptrdiff_t rows;
    ptrdiff_t x_rows;                /* all rows, whose x is read; or none: xw holds x.kernel + bias */
    const void *x;                   /* (x_rows, features)                                 */
    ptrdiff_t x_stride;
    void *xw;                        /* (rows, panels, 3, vlen)  in, out or scratch        */
    ptrdiff_t xw_stride;
    const void *h;                   /* (rows, units)      state before the step           */
    void *h_next;                    /* (rows, units)      overwritten; must not alias h   */
    void *rh;                        /* (rows, units)      reset before: scratch           */
    void *out;                       /* (rows, units)      overwritten; or NULL            */
    ptrdiff_t out_stride;
    const ptrdiff_t *out_rows;       /* (rows)             which row of out is whose; NULL: its own */
    const unsigned char *fate;       /* (rows)             what becomes of a row; NULL: all step */
    int distant;                     /* are the weights in memory rather than in a cache?  */
    int backwards;                   /* from the last panel to the first?                  */
};

enum { FASTGRU_STEPS, FASTGRU_KEEPS, FASTGRU_ZEROES };  /* fates: the last two are masked, output the
                                                          state or zeros                    */

#endif
