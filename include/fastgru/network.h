/* network.h - networks: nodes in running order over packed weights, and the function that runs them.
 *
 * A GRU is a network of one node, a Bidirectional layer of two and a merge; layers on top of each other are a chain.
 * Nodes read and write values: sequences (batch, timesteps, width). The first values are the inputs; outputs lie in the
 * caller's memory, all others in the workspace.
 *
 *     struct fastgru_network network = {nodes, values, ...};   examples/c has it all
 *     fastgru_connect(&network);                               once; from then on it is read-only
 *     run.memory = NULL;
 *     run.memory = aligned_alloc(64, fastgru_workspace(&network, &run));
 *     fastgru_workspace(&network, &run);                       lays it out, once for all runs of these sizes
 *     fastgru_run(&network, &run); */

#ifndef FASTGRU_NETWORK_H
#define FASTGRU_NETWORK_H

#include "fastgru.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a node writes, where x is the value that it reads, and y the second one if it reads two. If only one of the two
 * has timesteps, the other is used at each of them. */
enum fastgru_kind {
    FASTGRU_GRU,
    FASTGRU_CAST,                    /* x in another type                                  */
    FASTGRU_SUM, FASTGRU_MUL, FASTGRU_AVE, FASTGRU_SUB, FASTGRU_DIV, FASTGRU_MAX, FASTGRU_MIN,  /* of x and y */
    FASTGRU_COPY,                    /* columns from `from` on into those from `column` on */
    FASTGRU_DENSE,                   /* activation(x.kernel + bias)                        */
    FASTGRU_CONVOLUTION,             /* the same, where x is a window: its (size, channels) numbers side by side */
    FASTGRU_DEPTHWISE,               /* a convolution of each channel: weights (size, channels, multiplier), bias */
    FASTGRU_EMBEDDING,               /* row x, an int32, of weights (limit, width)         */
    FASTGRU_ACTIVATION,              /* activation(x)                                      */
    FASTGRU_SOFTMAX, FASTGRU_LOG_SOFTMAX,  /* of each step                                 */
    FASTGRU_PRELU,                   /* x where x >= 0, else x * weights                   */
    FASTGRU_SCALE,                   /* x * weights + bias                                 */
    FASTGRU_INVERSE,                 /* weights / x                                        */
    FASTGRU_CLIP,                    /* max(alpha, min(x, beta))                           */
    FASTGRU_NORM,                    /* (x - mean) / sqrt(variance + alpha) * weights + bias, of each step;
                                        without a mean if `size` is 1; if it is 2,
                                        x / sqrt(max(sum of x^2, alpha)) * weights + bias  */
    FASTGRU_DIFFERS,                 /* a mask: 1 if a number of the step is not alpha     */
    FASTGRU_NONZERO,                 /* a mask: 1 if the index x is not 0                  */
    FASTGRU_BOTH,                    /* a mask: 1 where the masks x and y both are         */
    FASTGRU_EITHER,                  /* a mask: 1 where the mask x or `mask` is            */
    FASTGRU_SELECT,                  /* x, or y where `mask` is 0                          */
    FASTGRU_HIDE,                    /* x, or zeros where `mask` is 0                      */
    FASTGRU_MEAN, FASTGRU_MOST,      /* mean, maximum of all timesteps, or of each window; a mean of all leaves
                                        out those where `mask` is 0                        */
    FASTGRU_LAST, FASTGRU_FIRST,     /* the last, the first timestep                       */
    FASTGRU_REPEAT,                  /* x, which has no timesteps, at each timestep        */
    FASTGRU_RESHAPE,                 /* the numbers of a row, in another shape             */
    FASTGRU_TRANSPOSE,               /* timesteps as features                              */
    FASTGRU_PAD                      /* x from the timestep `column` on, alpha at the others; where `column` is
                                        negative, x without as many of its first ones      */
};

/* Timesteps that values have in common: those of an input, the windows of another clock's timesteps, or a fixed number. */
struct fastgru_clock {
    int input;                       /* its number, or -1                                  */
    int from;                        /* the clock, before this one, that its windows are of; or -1 */
    ptrdiff_t span;                  /* timesteps of a window; 1: windows reach over both ends; less: timesteps
                                        are added                                          */
    ptrdiff_t stride;
    ptrdiff_t steps;                 /* the fixed number, if input and from are -1         */
};

struct fastgru_value {
    ptrdiff_t width;
    size_t itemsize;                 /* 2, 4 or 8: float16, float32 or float64; of indices 4, of a mask 1 */
    int last;                        /* 1: no timesteps, (batch, width), as the output of the last one alone */
    int clock;                       /* its number, unless `last`: 0 for that of the first input */
    int whole;                       /* set by fastgru_connect: not chunk by chunk         */
    int output;                      /* set by fastgru_connect: its number among the outputs, or -1 */
    int segment;                     /* set by fastgru_connect: that of the last node that writes it */
};

enum fastgru_padding { FASTGRU_VALID, FASTGRU_SAME, FASTGRU_CAUSAL };  /* as Keras has them */

enum { FASTGRU_CALL_MASK = 0, FASTGRU_NO_MASK = -1 };

struct fastgru_node {
    int kind;
    int input;                       /* the value that it reads                            */
    int other;                       /* the second one, if it reads two                    */
    int output;                      /* the value that it writes                           */
    ptrdiff_t column;                /* GRU, COPY: where in the output's width it begins; PAD: where in its
                                        timesteps                                          */
    ptrdiff_t from;                  /* COPY: the first column of x                        */
    const struct fastgru_layer *layer;  /* GRU, DENSE, CONVOLUTION                         */
    int go_backwards;
    int reverse_output;              /* 1: outputs are written from the last timestep on   */
    int zero_output_for_mask;
    int state;                       /* its number among those of a run, or -1. Of windows that are causal and do
                                        not stride: the steps before the first one, (batch, past, width of x) */
    int mask;                        /* GRU, EITHER, SELECT, HIDE, MEAN: the value that is its mask, or FASTGRU_..._MASK */
    int initial;                     /* GRU: the value, (batch, units), that it starts from; 0: none */
    int final;                       /* GRU: the value, (batch, units), of its last state; 0: none */
    int activation;                  /* of all but GRUs                                    */
    double alpha;                    /* its parameter, and others                          */
    double beta;
    const void *weights;
    const void *bias;                /* or NULL: none                                      */
    ptrdiff_t limit;                 /* rows of an embedding                               */
    int from_end;                    /* 1: negative indices count from the end             */
    ptrdiff_t size;                  /* of windows: steps that they read; 0: all. COPY: columns */
    ptrdiff_t stride;
    ptrdiff_t dilation;
    int padding;
    const struct fastgru_functions *functions;  /* unless it is a GRU                      */
    int segment;                     /* set by fastgru_connect                             */
};

enum { FASTGRU_OUTPUTS = 8 };

struct fastgru_network {
    struct fastgru_node *nodes;
    struct fastgru_value *values;
    const struct fastgru_clock *clocks;  /* the first is that of the first input; NULL: there is no other */
    int node_count;
    int value_count;                 /* with the inputs, which come first                  */
    int input_count;                 /* 0: one                                             */
    int clock_count;
    int state_count;
    int output_count;
    int outputs[FASTGRU_OUTPUTS];    /* values                                             */
    size_t chunk_bytes;              /* of a value; 0: set by fastgru_connect              */
    ptrdiff_t chunk_steps;           /* at least; 0: set by fastgru_connect                */
};

/* An input after the first one. */
struct fastgru_input {
    const void *data;                /* (batch, timesteps, width)                          */
    ptrdiff_t batch_stride;
    ptrdiff_t time_stride;
    ptrdiff_t timesteps;
};

/* Some timesteps of some rows. */
struct fastgru_network_call {
    ptrdiff_t batch;
    ptrdiff_t timesteps;
    const void *x;                   /* (batch, timesteps, features)                       */
    ptrdiff_t x_batch_stride;
    ptrdiff_t x_time_stride;
    const struct fastgru_input *inputs;  /* (inputs - 1)  the others                       */
    const void *const *initial_states;  /* (states) of (batch, units) each; each of them, or all, NULL: zeros */
    void *const *states;             /* (states) of (batch, units) each, overwritten; may be the initial
                                        ones; each of them, or all, NULL: not wanted       */
    void *out[FASTGRU_OUTPUTS];      /* (batch, timesteps, width), or (batch, width) of the last step:
                                        overwritten                                        */
    ptrdiff_t out_batch_stride[FASTGRU_OUTPUTS];
    ptrdiff_t out_time_stride[FASTGRU_OUTPUTS];  /* 0 for the last step's                  */
    const unsigned char *mask;       /* (batch, timesteps) 0: the row keeps its state; or NULL */
    ptrdiff_t mask_batch_stride;
    ptrdiff_t mask_time_stride;
    const ptrdiff_t *lengths;        /* (batch)  steps of each row, the first ones of the sequence, 0 to
                                        first + timesteps; then there is no mask; or NULL  */
    ptrdiff_t first;                 /* the timestep of the sequence that x begins with, for lengths; initial
                                        states are those of the timesteps before, or go_backwards, after. For masks
                                        it is 0, or not: then rows have had a step    */
    unsigned walk;                   /* in and out: as in fastgru_call                     */
    int threads;                     /* at most, or FASTGRU_AUTO; 0: fastgru_get_threads   */
    void *memory;                    /* fastgru_workspace bytes, aligned to 64, laid out by it */
};

/* Group nodes into segments, once all fields are set. Returns 0, or -1 if nodes are not in running order. */
int fastgru_connect(struct fastgru_network *network);

/* Bytes of memory that a run takes, by its sizes, the strides of its outputs, its lengths, and whether there is a
 * mask; (size_t)-1 if they are more than there can be. Unless `memory` is NULL, it is laid out for runs that agree in
 * all of these. */
size_t fastgru_workspace(const struct fastgru_network *network, const struct fastgru_network_call *run);

/* Run at least one timestep. Cannot fail and does not allocate. */
void fastgru_run(
    const struct fastgru_network *network,
    struct fastgru_network_call *run);        /* in and out: walk                                   */

/* ---- what a format of weights gets ----------------------------------------------------- */

/* x.kernel of some steps of some rows. */
struct fastgru_projection {
    ptrdiff_t rows;
    ptrdiff_t steps;
    const void *x;                   /* (rows, steps, features)                            */
    ptrdiff_t x_batch_stride;
    ptrdiff_t x_time_stride;
    const ptrdiff_t *x_rows;         /* (rows)             the row of x of each; NULL: its own */
    const ptrdiff_t *lengths;        /* (rows)             steps of each, the most first: those beyond
                                        are left out; NULL: all                            */
    ptrdiff_t start;                 /* of the steps, among those that lengths count       */
    void *xw;                        /* (steps, rows, panels, 3, vlen)  overwritten: x.kernel + bias, or, if
                                        full_tile is 0, x.kernel in three parts of `units`; dense
                                        (steps, rows, units)                               */
    ptrdiff_t xw_stride;             /* in and out: of a row                               */
    ptrdiff_t xw_time_stride;        /* in and out                                         */
    int backwards;                   /* 1 from the last panel to the first                 */
    ptrdiff_t first_panel;           /* those that are computed ...                        */
    ptrdiff_t end_panel;             /* ... up to this one; 0: all                         */
    int part;                        /* fastgru_projection_part, of quantized weights      */
};

/* Quantized, x.kernel is multiplied from factors that lie behind it in xw. */
enum fastgru_projection_part { FASTGRU_PROJECT, FASTGRU_PROJECT_FACTORS, FASTGRU_PROJECT_PRODUCTS };

/* What a row does in a step: compute; or, if masked, keep its state and output that or zeros. */
enum fastgru_row_action { FASTGRU_ROW_STEPS, FASTGRU_ROW_KEEPS, FASTGRU_ROW_ZEROES };

/* One pass over the weights: x.kernel of some rows, or one timestep of them. */
struct fastgru_pass {
    ptrdiff_t rows;
    ptrdiff_t x_rows;                /* rows: x is read; or 0: xw holds the projection     */
    const void *x;                   /* (x_rows, features)                                 */
    ptrdiff_t x_stride;
    void *xw;                        /* (rows, panels, 3, vlen)  in, overwritten or scratch */
    ptrdiff_t xw_stride;
    const void *h;                   /* (rows, units)      state before the step           */
    void *h_next;                    /* (rows, units)      overwritten; must not alias h   */
    void *scratch;                   /* (rows, step_units * units)  overwritten            */
    const void *factors;             /* quantized: (rows, factors_stride)  overwritten: what is multiplied, h
                                        or r * h; NULL: behind scratch                     */
    ptrdiff_t factors_stride;        /* set by the step                                    */
    void *out;                       /* (rows, units)      overwritten; or NULL            */
    ptrdiff_t out_stride;
    const ptrdiff_t *out_rows;       /* (rows)             the row of out of each; NULL: its own */
    const unsigned char *actions;    /* (rows)             fastgru_row_action; NULL: all step */
    int fetch;                       /* 1 if weights are not in the second-level cache     */
    int backwards;                   /* 1 from the last panel to the first                 */
    ptrdiff_t first_panel;           /* those that are computed ...                        */
    ptrdiff_t end_panel;             /* ... up to this one; 0: all                         */
    int half;                        /* fastgru_step_half, reset before                    */
};

/* Reset before, a step is r * h of all units, and then the rest: then panels are those of candidates. */
enum fastgru_step_half { FASTGRU_WHOLE_STEP, FASTGRU_RESET_HALF, FASTGRU_UPDATE_HALF };

/* ---- numbers --------------------------------------------------------------------------- */

/* y := x, n numbers of another type: float16 to the nearest, ties to even. */
void fastgru_cast(
    ptrdiff_t n,
    const void *x,                   /* (n) of x_size bytes each: 2, 4 or 8                */
    size_t x_size,
    ptrdiff_t x_stride,              /* in bytes                                           */
    void *y,                         /* (n) of y_size bytes each, overwritten              */
    size_t y_size);

#ifdef __cplusplus
}
#endif

#endif
