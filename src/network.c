/* network.c - the one executor.
 *
 * A run cuts rows into blocks. Nodes that can run while their input arrives form a segment with the node before;
 * a GRU that goes backwards, or whose outputs are reversed, is a segment of its own. A segment goes through time chunk
 * by chunk, its nodes one after the other on each chunk, so that the values between them stay in the cache. */

#include <stdint.h>
#include <string.h>

#include "fastgru/network.h"
#include "layout.h"

/* ---- sizes ------------------------------------------------------------------------------------ */

enum {
    RUN_ROWS = 128,          /* of a block, if there are several nodes             */
    RUN_BYTES = 512 << 10,   /* of a chunk of a value: it stays in the second-level cache */
    RUN_STEPS = 16           /* of a chunk at least: the start of a run costs little */
};

#define TOO_LARGE ((size_t)-1)

/* a * b, or TOO_LARGE. */
static size_t product(size_t a, size_t b)
{
    return b && a > (TOO_LARGE >> 1) / b ? TOO_LARGE : a * b;
}

/* Where a value lies. */
struct part {
    char *data;                      /* its first row and timestep                         */
    ptrdiff_t batch_stride;          /* in elements                                        */
    ptrdiff_t time_stride;           /* of_block: divided by the rows of the block         */
    int of_block;                    /* 1: its rows are those of a block                   */
    int of_chunk;                    /* 1: its timesteps are those of a chunk              */
};

/* Where the parts of a run's memory lie, which begins with this; if memory is NULL, only `bytes` has a meaning. */
struct workspace {
    size_t bytes;                    /* TOO_LARGE: more than there can be                  */
    ptrdiff_t timesteps;             /* that the run goes through                          */
    ptrdiff_t rows;                  /* of a block                                         */
    ptrdiff_t steps;                 /* of a chunk                                         */
    char *memory;
    struct part *values;             /* (values) the input and outputs: set by each run    */
    struct fastgru_call *calls;      /* (nodes)  of GRUs: what is the same in all chunks   */
    char **states;                   /* (nodes)                                            */
    unsigned char **seen;            /* (nodes)  rows that have had a step                 */
    ptrdiff_t *lengths;              /* (2, rows) in order, and which rows they are of     */
    ptrdiff_t *clipped;              /* (rows)   those of a chunk                          */
    ptrdiff_t *spare;                /* (rows)                                             */
    char *scratch;                   /* of a GRU                                           */
};

static char *take(struct workspace *w, size_t bytes)
{
    char *part = w->memory ? w->memory + w->bytes : NULL;
    if (bytes > TOO_LARGE >> 1 || w->bytes > TOO_LARGE >> 1)
        w->bytes = TOO_LARGE;
    else
        w->bytes += fastgru_lines(bytes);
    return part;
}

/* 1 if the node is the only one of its segment. */
static int is_alone(const struct fastgru_network *network, int node)
{
    const int segment = network->nodes[node].segment;
    return !(node && network->nodes[node - 1].segment == segment)
        && !(node + 1 < network->node_count && network->nodes[node + 1].segment == segment);
}

/* 1 if the output of a GRU is its last state, and need not be written beside it. */
static int gives_state(
    const struct fastgru_network *network, const struct fastgru_network_call *run, const struct fastgru_node *node)
{
    const struct fastgru_value *value = network->values + node->output;
    return !run->mask && !run->lengths && (value->last || (run->timesteps == 1 && value->output >= 0));
}

/* 1 if that output has the layout of a state, which is then written there directly. */
static int is_state(
    const struct fastgru_network *network, const struct fastgru_network_call *run, const struct fastgru_node *node)
{
    const struct fastgru_value *value = network->values + node->output;
    return gives_state(network, run, node) && value->output >= 0 && node->column == 0
        && run->out_batch_stride[value->output] == node->layer->units;
}

/* Steps that a run goes through. With lengths, if no output of later steps is read, these are the steps of the longest
 * row and at least one more, at which every row is masked. */
static ptrdiff_t needed_steps(const struct fastgru_network *network, const struct fastgru_network_call *run)
{
    ptrdiff_t most = 0, least = 1;
    if (!run->lengths)
        return run->timesteps;
    for (int i = 0; i < network->output_count; ++i)
        if (!network->values[network->outputs[i]].last)
            return run->timesteps;
    for (int n = 0; n < network->node_count; ++n) {
        const struct fastgru_node *node = network->nodes + n;
        if (node->kind != FASTGRU_GRU)
            continue;
        if (!node->layer->kernels->full_tile)  /* bits depend on how many steps a product is of     */
            least = FASTGRU_CHUNK_ROWS;
        if (!network->values[node->output].last && node->go_backwards != node->reverse_output)
            return run->timesteps;   /* outputs do not belong to the timesteps of the input        */
    }
    for (ptrdiff_t row = 0; row < run->batch; ++row)
        most = run->lengths[row] - run->first > most ? run->lengths[row] - run->first : most;
    if (most >= run->timesteps)
        return run->timesteps;
    most = (most / least + 1) * least;
    return most < run->timesteps ? most : run->timesteps;
}

size_t fastgru_workspace(const struct fastgru_network *network, const struct fastgru_network_call *run)
{
    const ptrdiff_t batch = run->batch;
    const int masked = run->mask || run->lengths;
    struct workspace w;
    size_t step_bytes = 1, all = 0, scratch = 0;
    memset(&w, 0, sizeof w);
    w.memory = (char *)run->memory;
    take(&w, sizeof w);
    w.timesteps = needed_steps(network, run);
    w.rows = batch;
    if (network->node_count > 1 && batch > RUN_ROWS) {
        const ptrdiff_t blocks = batch / RUN_ROWS + (batch % RUN_ROWS != 0);
        w.rows = (batch / blocks + (batch % blocks != 0) + 7) / 8 * 8;
    }
    for (int v = 1; v < network->value_count; ++v) {
        const struct fastgru_value *value = network->values + v;
        const size_t bytes = (size_t)w.rows * (size_t)value->width * value->itemsize;
        if (value->output < 0 && !value->whole) {
            step_bytes = bytes > step_bytes ? bytes : step_bytes;
            all += bytes;
        }
    }
    step_bytes = all / 2 > step_bytes ? all / 2 : step_bytes;  /* all together are at most two chunks of bytes */
    w.steps = (ptrdiff_t)(network->chunk_bytes / step_bytes);
    w.steps = w.steps < network->chunk_steps ? network->chunk_steps : w.steps;
    w.steps = w.steps < w.timesteps ? w.steps : w.timesteps;

    w.values = (struct part *)(void *)take(&w, (size_t)network->value_count * sizeof(struct part));
    w.calls = (struct fastgru_call *)(void *)take(&w, (size_t)network->node_count * sizeof(struct fastgru_call));
    w.states = (char **)(void *)take(&w, (size_t)network->node_count * sizeof(char *));
    w.seen = (unsigned char **)(void *)take(&w, (size_t)network->node_count * sizeof(char *));
    for (int v = 1; v < network->value_count; ++v) {
        const struct fastgru_value *value = network->values + v;
        const size_t steps = value->last ? 1 : (size_t)(value->whole ? w.timesteps : w.steps);
        const size_t row = (size_t)value->width * value->itemsize;
        char *part = value->output >= 0 ? NULL
            : take(&w, product(product((size_t)w.rows, row), steps));
        if (w.memory) {
            const struct part own = {part, value->width, value->last ? 0 : value->width, 1, !value->whole};
            w.values[v] = own;
        }
    }
    for (int n = 0; n < network->node_count; ++n) {
        const struct fastgru_node *node = network->nodes + n;
        const int alone = is_alone(network, n);
        char *state = NULL, *seen = NULL;
        size_t bytes;
        if (node->kind == FASTGRU_GRU) {
            const size_t row = (size_t)node->layer->units * network->values[node->output].itemsize;
            bytes = (run->lengths ? fastgru_ragged_scratch_size : fastgru_scratch_size)(
                node->layer, w.rows, alone ? w.timesteps : w.steps);
            scratch = bytes > scratch ? bytes : scratch;
            if (!is_state(network, run, node) && (!alone || gives_state(network, run, node)))
                state = take(&w, product((size_t)w.rows, row));
            if (masked)
                seen = take(&w, (size_t)w.rows);
        }
        if (w.memory) {
            w.states[n] = state;
            w.seen[n] = (unsigned char *)seen;
        }
    }
    if (run->lengths) {
        const size_t bytes = product((size_t)w.rows, sizeof(ptrdiff_t));
        w.lengths = (ptrdiff_t *)(void *)take(&w, 2 * bytes);
        w.clipped = (ptrdiff_t *)(void *)take(&w, bytes);
        w.spare = (ptrdiff_t *)(void *)take(&w, 2 * bytes);
    }
    w.scratch = take(&w, scratch);
    if (w.memory) {
        memset(w.calls, 0, (size_t)network->node_count * sizeof(struct fastgru_call));
        for (int n = 0; n < network->node_count; ++n) {
            w.calls[n].go_backwards = network->nodes[n].go_backwards;
            w.calls[n].zero_output_for_mask = network->nodes[n].zero_output_for_mask;
            w.calls[n].lengths = w.clipped;
            w.calls[n].seen = w.seen[n];
            w.calls[n].scratch = w.scratch;
        }
        memcpy(w.memory, &w, sizeof w);
    }
    return w.bytes;
}

/* ---- a run ------------------------------------------------------------------------------------ */

/* 1 if the node reads `other`, too. */
static int reads_two(const struct fastgru_node *node)
{
    return node->kind == FASTGRU_SUM || node->kind == FASTGRU_MUL || node->kind == FASTGRU_AVE;
}

/* Find segments, and which values are needed whole. Returns 0, or -1 if nodes are not in running order. */
int fastgru_connect(struct fastgru_network *network)
{
    int segment = -1, open = 0;      /* 1 if the next node can join                        */
    network->chunk_bytes = network->chunk_bytes ? network->chunk_bytes : RUN_BYTES;
    network->chunk_steps = network->chunk_steps ? network->chunk_steps : RUN_STEPS;
    for (int v = 0; v < network->value_count; ++v) {
        network->values[v].whole = v == 0;
        network->values[v].output = -1;
    }
    for (int i = 0; i < network->output_count; ++i)
        network->values[network->outputs[i]].output = i;
    for (int n = 0; n < network->node_count; ++n) {
        struct fastgru_node *node = network->nodes + n;
        const int whole = node->kind == FASTGRU_GRU && (node->go_backwards || node->reverse_output);
        if (whole || !open)
            ++segment;
        open = !whole;
        node->segment = segment;
        if (node->output <= 0 || node->output >= network->value_count || node->input >= network->value_count)
            return -1;
    }
    for (int n = 0; n < network->node_count; ++n)  /* whole: written in a segment, and read, or written, in another */
        for (int m = 0; m < network->node_count; ++m) {
            const struct fastgru_node *node = network->nodes + n, *user = network->nodes + m;
            const int uses = user->output == node->output || user->input == node->output
                || (reads_two(user) && user->other == node->output);
            if (uses && user->segment != node->segment)
                network->values[node->output].whole = 1;
        }
    return 0;
}

/* What a run's chunk is. */
struct chunk {
    ptrdiff_t first_row;
    ptrdiff_t rows;
    ptrdiff_t first;                 /* timestep                                           */
    ptrdiff_t steps;
};

/* Where the steps from `time` on of a chunk's rows of a value lie. */
static struct part part_of(
    const struct fastgru_network *network, const struct workspace *w, int number, const struct chunk *chunk,
    ptrdiff_t time)
{
    struct part part = w->values[number];
    const ptrdiff_t row = part.of_block ? 0 : chunk->first_row, step = part.of_chunk ? time - chunk->first : time;
    part.time_stride *= part.of_block ? chunk->rows : 1;
    part.data += (row * part.batch_stride + step * part.time_stride) * (ptrdiff_t)network->values[number].itemsize;
    return part;
}

/* A GRU on a chunk. */
static void run_gru(
    const struct fastgru_network *network, struct fastgru_network_call *run, const struct workspace *w, int n,
    const struct chunk *chunk)
{
    const struct fastgru_node *node = network->nodes + n;
    const struct fastgru_value *value = network->values + node->output;
    const size_t itemsize = value->itemsize, width = (size_t)node->layer->units * itemsize;
    const size_t offset = (size_t)chunk->first_row * width;
    const char *initial = (const char *)run->initial_states[node->state];
    char *state = (char *)run->states[node->state];
    const struct part x = part_of(network, w, node->input, chunk, chunk->first);
    struct part out = part_of(
        network, w, node->output, chunk, node->reverse_output ? w->timesteps - 1 - chunk->first : chunk->first);
    struct fastgru_call *call = w->calls + n;
    out.data += (size_t)node->column * itemsize;
    state = state ? state + offset : is_state(network, run, node) ? out.data : w->states[n];
    call->batch = chunk->rows;
    call->timesteps = chunk->steps;
    call->x = x.data;
    call->x_batch_stride = x.batch_stride;
    call->x_time_stride = x.time_stride;
    call->initial_state = chunk->first ? state : initial ? initial + offset : NULL;
    call->state = state;
    call->walk = run->walk;
    if (run->mask) {
        call->mask = run->mask + chunk->first_row * run->mask_batch_stride + chunk->first * run->mask_time_stride;
        call->mask_batch_stride = run->mask_batch_stride;
        call->mask_time_stride = run->mask_time_stride;
    }
    if (run->lengths)
        call->rows = w->lengths + chunk->rows;
    if (!gives_state(network, run, node)) {
        call->out = out.data;
        call->out_batch_stride = out.batch_stride;
        call->out_time_stride = value->last ? 0 : node->reverse_output ? -out.time_stride : out.time_stride;
    }
    fastgru_sequence(node->layer, call);
    run->walk = call->walk;
    if (!call->out && state != out.data)  /* the last output is the state */
        for (ptrdiff_t row = 0; row < chunk->rows; ++row)
            memcpy(out.data + row * out.batch_stride * (ptrdiff_t)itemsize, state + (size_t)row * width, width);
}

/* Any other node on a chunk. */
OUTLINE void run_elementwise(
    const struct fastgru_network *network, const struct workspace *w, int n, const struct chunk *chunk)
{
    const struct fastgru_node *node = network->nodes + n;
    const struct fastgru_value *from = network->values + node->input, *to = network->values + node->output;
    const ptrdiff_t in_size = (ptrdiff_t)from->itemsize, out_size = (ptrdiff_t)to->itemsize;
    const int merges = reads_two(node);
    const struct part a = part_of(network, w, node->input, chunk, chunk->first);
    const struct part y = part_of(network, w, node->output, chunk, chunk->first);
    const struct part b = merges ? part_of(network, w, node->other, chunk, chunk->first) : a;
    for (ptrdiff_t row = 0; row < chunk->rows; ++row)
        for (ptrdiff_t step = 0; step < (to->last ? 1 : chunk->steps); ++step) {
            const char *left = a.data + (row * a.batch_stride + step * a.time_stride) * in_size;
            char *merged = y.data + (row * y.batch_stride + step * y.time_stride) * out_size;
            if (merges)
                fastgru_merge(node->kind, to->itemsize, to->width, left,
                              b.data + (row * b.batch_stride + step * b.time_stride) * in_size, merged);
            else
                fastgru_cast(to->width, left, from->itemsize, in_size, merged, to->itemsize);
        }
}

/* The lengths that are left of a chunk. */
static void clip(
    const struct fastgru_network_call *run, const struct workspace *w, const struct chunk *chunk)
{
    for (ptrdiff_t i = 0; i < chunk->rows; ++i) {
        const ptrdiff_t left = w->lengths[i] - run->first - chunk->first;
        w->clipped[i] = left < 0 ? 0 : left < chunk->steps ? left : chunk->steps;
    }
}

void fastgru_run(const struct fastgru_network *network, struct fastgru_network_call *run)
{
    const struct workspace *w = (const struct workspace *)run->memory;
    const struct part x = {(char *)(uintptr_t)run->x, run->x_batch_stride, run->x_time_stride, 0, 0};
    struct chunk chunk;
    w->values[0] = x;
    for (int i = 0; i < network->output_count; ++i) {
        const struct part out = {(char *)run->out[i], run->out_batch_stride[i], run->out_time_stride[i], 0, 0};
        w->values[network->outputs[i]] = out;
    }
    for (chunk.first_row = 0; chunk.first_row < run->batch; chunk.first_row += w->rows) {
        const ptrdiff_t left = run->batch - chunk.first_row;
        int end;
        chunk.rows = left < w->rows ? left : w->rows;
        if (run->lengths)
            fastgru_order(chunk.rows, run->lengths + chunk.first_row, w->lengths, w->spare);
        for (int n = 0; n < network->node_count; ++n)
            for (ptrdiff_t row = 0; w->seen[n] && row < chunk.rows; ++row)
                w->seen[n][row] = run->lengths && run->first && !network->nodes[n].go_backwards
                    && run->lengths[chunk.first_row + row];
        for (int start = 0; start < network->node_count; start = end) {
            ptrdiff_t steps = w->timesteps;
            for (end = start + 1; end < network->node_count
                    && network->nodes[end].segment == network->nodes[start].segment; ++end)
                steps = w->steps;
            for (chunk.first = 0; chunk.first < w->timesteps; chunk.first += steps) {
                chunk.steps = w->timesteps - chunk.first < steps ? w->timesteps - chunk.first : steps;
                if (run->lengths)
                    clip(run, w, &chunk);
                for (int n = start; n < end; ++n)
                    if (network->nodes[n].kind == FASTGRU_GRU)
                        run_gru(network, run, w, n, &chunk);
                    else
                        run_elementwise(network, w, n, &chunk);
            }
        }
    }
}
