/* network.c - the one executor.
 *
 * A run cuts rows into blocks. Nodes that can run while their input arrives, and go through the same timesteps, form a
 * segment with the node before; one that needs the whole sequence, such as a GRU that goes backwards, is a segment of
 * its own. A segment goes through time chunk by chunk, its nodes one after the other on each chunk, so that the values
 * between them stay in the cache. */

#include <stdint.h>
#include <string.h>

#include "sequence.h"
#include "team.h"
#include "workspace.h"

/* A chunk: some timesteps of the rows of a block. */
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

/* Timesteps that a node runs through. */
static ptrdiff_t all_steps(
    const struct fastgru_network *network, const struct fastgru_network_call *run, const struct workspace *w,
    const struct fastgru_node *node)
{
    const int clock = fastgru_clock_of(network, node);
    return clock < 0 ? 1 : clock ? fastgru_clock_steps(network, run, clock) : w->timesteps;
}

/* Which of a chunk's rows are masked for a node, and at which steps. */
static struct masking mask_of(
    const struct fastgru_network *network, const struct fastgru_network_call *run, const struct workspace *w,
    const struct fastgru_node *node, const struct chunk *chunk)
{
    struct masking mask = {NULL, 0, 0, NULL, 0};
    if (node->mask > 0) {
        const struct part part = part_of(network, w, node->mask, chunk, chunk->first);
        mask.bytes = (const unsigned char *)part.data;
        mask.batch_stride = part.batch_stride;
        mask.time_stride = part.time_stride;
    } else if (node->mask == FASTGRU_CALL_MASK && run->mask) {
        mask.bytes = run->mask + chunk->first_row * run->mask_batch_stride + chunk->first * run->mask_time_stride;
        mask.batch_stride = run->mask_batch_stride;
        mask.time_stride = run->mask_time_stride;
    } else if (node->mask == FASTGRU_CALL_MASK && run->lengths) {
        mask.lengths = run->lengths + chunk->first_row;
        mask.first = run->first + chunk->first;
    }
    return mask;
}

/* Describe the call of a GRU on a chunk; returns its state, and where the chunk's outputs begin. */
INLINE char *describe_gru(
    const struct fastgru_network *network, struct fastgru_network_call *run, const struct workspace *w, int n,
    const struct chunk *chunk,
    struct part *outputs)            /* overwritten                                        */
{
    const struct fastgru_node *node = network->nodes + n;
    const struct fastgru_value *value = network->values + node->output;
    const size_t itemsize = value->itemsize, width = (size_t)node->layer->units * itemsize;
    const size_t offset = (size_t)chunk->first_row * width;
    const char *initial = run->initial_states ? (const char *)run->initial_states[node->state] : NULL;
    char *state = run->states ? (char *)run->states[node->state] : NULL;
    const struct part x = part_of(network, w, node->input, chunk, chunk->first);
    struct part out = part_of(
        network, w, node->output, chunk,
        node->reverse_output ? all_steps(network, run, w, node) - 1 - chunk->first : chunk->first);
    const struct masking mask = mask_of(network, run, w, node, chunk);
    struct fastgru_call *call = w->calls + n;
    out.data += (size_t)node->column * itemsize;
    state = state ? state + offset : w->states[n] ? w->states[n] : is_state(network, run, node) ? out.data : NULL;
    call->batch = chunk->rows;
    call->timesteps = chunk->steps;
    call->x = x.data;
    call->x_batch_stride = x.batch_stride;
    call->x_time_stride = x.time_stride;
    call->initial_state = chunk->first ? state : initial ? initial + offset : NULL;
    if (node->initial && !chunk->first) {
        const struct part given = part_of(network, w, node->initial, chunk, 0);
        for (ptrdiff_t row = 0; row < chunk->rows; ++row)
            memcpy(state + (size_t)row * width, at(&given, row, 0), width);
        call->initial_state = state;
    }
    call->state = state;
    call->walk = run->walk;
    call->mask = mask.bytes;
    call->mask_batch_stride = mask.batch_stride;
    call->mask_time_stride = mask.time_stride;
    if (mask.lengths)
        call->rows = w->lengths + chunk->rows;
    if (!gives_state(network, run, node)) {
        call->out = out.data;
        call->out_batch_stride = out.batch_stride;
        call->out_time_stride = value->last ? 0 : node->reverse_output ? -out.time_stride : out.time_stride;
    }
    *outputs = out;
    return state;
}

/* Copy what a GRU's call does not write by itself. */
INLINE void conclude_gru(
    const struct fastgru_network *network, const struct workspace *w, int n, const struct chunk *chunk,
    const char *state, const struct part *out)
{
    const struct fastgru_node *node = network->nodes + n;
    const size_t itemsize = network->values[node->output].itemsize, width = (size_t)node->layer->units * itemsize;
    if (!w->calls[n].out && state != out->data)  /* the last output is the state */
        for (ptrdiff_t row = 0; row < chunk->rows; ++row)
            memcpy(out->data + row * out->batch_stride * (ptrdiff_t)itemsize, state + (size_t)row * width, width);
    if (node->final) {
        const struct part final = part_of(network, w, node->final, chunk, 0);
        for (ptrdiff_t row = 0; row < chunk->rows; ++row)
            memcpy(at(&final, row, 0), state + (size_t)row * width, width);
    }
}

/* Run a GRU on a chunk. */
static void run_gru(
    const struct fastgru_network *network, struct fastgru_network_call *run, const struct workspace *w, int n,
    const struct chunk *chunk)
{
    const struct fastgru_layer *layer = network->nodes[n].layer;
    const int threads = fastgru_threads_of(run->threads);
    struct part out;
    const char *state = describe_gru(network, run, w, n, chunk, &out);
    const int shared = threads > 1 ? fastgru_share(layer, w->calls + n, threads)
        : threads == FASTGRU_AUTO && fastgru_share_if_it_pays(layer, w->calls + n);
    if (!shared)
        fastgru_sequence(layer, w->calls + n);
    run->walk = w->calls[n].walk;
    conclude_gru(network, w, n, chunk, state, &out);
}

/* 1 if a GRU and the node after it are GRUs that read the same, over all timesteps, and not each other. */
static int are_two(const struct fastgru_network *network, int n)
{
    const struct fastgru_node *a = network->nodes + n, *b = a + 1;
    return n + 1 < network->node_count && a->kind == FASTGRU_GRU && b->kind == FASTGRU_GRU
        && is_alone(network, n) && is_alone(network, n + 1) && a->input == b->input && !a->final && !b->initial;
}

/* Run both on a chunk of all timesteps, by two threads. Returns 0, and has done nothing, if each is to run by itself. */
OUTLINE int run_two(
    const struct fastgru_network *network, struct fastgru_network_call *run, const struct workspace *w, int n,
    const struct chunk *chunk)
{
    const struct fastgru_layer *const layers[2] = {network->nodes[n].layer, network->nodes[n + 1].layer};
    struct fastgru_call *const calls[2] = {w->calls + n, w->calls + n + 1};
    const char *states[2];
    struct part outs[2];
    for (int i = 0; i < 2; ++i)
        states[i] = describe_gru(network, run, w, n + i, chunk, outs + i);
    if (!fastgru_share_two(layers, calls))
        return 0;
    for (int i = 0; i < 2; ++i)
        conclude_gru(network, w, n + i, chunk, states[i], outs + i);
    return 1;
}

/* Run any other node on a chunk. */
OUTLINE void run_other(
    const struct fastgru_network *network, const struct fastgru_network_call *run, const struct workspace *w, int n,
    const struct chunk *chunk)
{
    const struct fastgru_node *node = network->nodes + n;
    const int whole = fastgru_needs_all(network, node);
    struct work work;
    work.node = node;
    work.rows = chunk->rows;
    work.x_steps = whole ? steps_of(network, run, node->input) : chunk->steps;
    work.steps = chunk->steps;
    work.x = part_of(network, w, node->input, chunk, chunk->first);
    work.y = reads_two(node) ? part_of(network, w, node->other, chunk, chunk->first) : work.x;
    work.out = part_of(network, w, node->output, chunk, chunk->first);
    work.mask = mask_of(network, run, w, node, chunk);
    work.scratch = w->scratch;
    work.past = NULL;
    if (fastgru_past(node)) {
        const size_t row = (size_t)(fastgru_past(node) * work.x.width) * work.x.itemsize;
        const char *initial = run->initial_states ? (const char *)run->initial_states[node->state] : NULL;
        char *state = run->states ? (char *)run->states[node->state] : NULL;
        work.past = state ? state + (size_t)chunk->first_row * row : w->states[n];
        if (!chunk->first && !initial)
            memset(work.past, 0, (size_t)chunk->rows * row);
        else if (!chunk->first)
            memmove(work.past, initial + (size_t)chunk->first_row * row, (size_t)chunk->rows * row);
    }
    fastgru_run_node(&work);
}

/* How many steps of a chunk each row has, in the order of lengths. */
static void clip(
    const struct fastgru_network_call *run, const struct workspace *w, const struct chunk *chunk)
{
    for (ptrdiff_t i = 0; i < chunk->rows; ++i) {
        const ptrdiff_t left = w->lengths[i] - run->first - chunk->first;
        w->clipped[i] = left < 0 ? 0 : left < chunk->steps ? left : chunk->steps;
    }
}

/* Say where an input or output lies. */
INLINE void place(
    const struct fastgru_network *network, const struct workspace *w, int value, const void *data,
    ptrdiff_t batch_stride, ptrdiff_t time_stride)
{
    const struct part part = {(char *)(uintptr_t)data, batch_stride, time_stride, 0, 0,
                              network->values[value].width, network->values[value].itemsize};
    w->values[value] = part;
}

void fastgru_run(const struct fastgru_network *network, struct fastgru_network_call *run)
{
    const struct workspace *w = (const struct workspace *)run->memory;
    const int threads = fastgru_threads_of(run->threads);
    struct chunk chunk;
    place(network, w, 0, run->x, run->x_batch_stride, run->x_time_stride);
    for (int i = 1; i < network->input_count; ++i)
        place(network, w, i, run->inputs[i - 1].data, run->inputs[i - 1].batch_stride,
              network->values[i].last ? 0 : run->inputs[i - 1].time_stride);
    for (int i = 0; i < network->output_count; ++i)
        place(network, w, network->outputs[i], run->out[i], run->out_batch_stride[i], run->out_time_stride[i]);
    for (chunk.first_row = 0; chunk.first_row < run->batch; chunk.first_row += w->rows) {
        const ptrdiff_t left = run->batch - chunk.first_row;
        int end;
        chunk.rows = left < w->rows ? left : w->rows;
        if (run->lengths)
            fastgru_order(chunk.rows, run->lengths + chunk.first_row, w->lengths, w->spare);
        for (int n = 0; n < network->node_count; ++n)
            for (ptrdiff_t row = 0; w->seen[n] && row < chunk.rows; ++row)
                w->seen[n][row] = run->first && !network->nodes[n].go_backwards
                    && (!run->lengths || run->lengths[chunk.first_row + row]);
        for (int start = 0; start < network->node_count; start = end) {
            const ptrdiff_t all = all_steps(network, run, w, network->nodes + start);
            ptrdiff_t steps = all;
            for (end = start + 1; end < network->node_count
                    && network->nodes[end].segment == network->nodes[start].segment; ++end)
                steps = w->steps;
            for (chunk.first = 0; chunk.first < all; chunk.first += steps) {
                chunk.steps = all - chunk.first < steps ? all - chunk.first : steps;
                if (run->lengths)
                    clip(run, w, &chunk);
                if (threads != 1 && are_two(network, start) && run_two(network, run, w, start, &chunk)) {
                    ++end;
                    continue;
                }
                for (int n = start; n < end; ++n)
                    if (network->nodes[n].kind == FASTGRU_GRU)
                        run_gru(network, run, w, n, &chunk);
                    else
                        run_other(network, run, w, n, &chunk);
            }
        }
    }
}
