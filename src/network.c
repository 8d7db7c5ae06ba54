/* network.c - the one executor.
 *
 * A run cuts rows into blocks. Nodes that can run while their input arrives, and go through the same timesteps, form a
 * segment with the node before; one that needs the whole sequence, such as a GRU that goes backwards, is a segment of
 * its own. A segment goes through time chunk by chunk, its nodes one after the other on each chunk, so that the values
 * between them stay in the cache. */

#include <stdint.h>
#include <string.h>

#include "fastgru/network.h"
#include "layout.h"
#include "nodes.h"

/* ---- sizes ------------------------------------------------------------------------------------ */

enum { RUN_ROWS = 128 };             /* of a block, if there are several nodes             */

/* Where the parts of a workspace lie; if memory is NULL, only `bytes` has a meaning. */
struct workspace {
    size_t bytes;                    /* FASTGRU_TOO_LARGE: more than there can be          */
    ptrdiff_t rows;                  /* of a block                                         */
    ptrdiff_t steps;                 /* of a chunk                                         */
    char *memory;
    char **values;                   /* (values)                                           */
    char **states;                   /* (nodes)                                            */
    unsigned char **seen;            /* (nodes)  rows that have had a step                 */
    ptrdiff_t *lengths;              /* (2, rows) in order, and which rows they are of     */
    ptrdiff_t *clipped;              /* (rows)   those of a chunk                          */
    ptrdiff_t *spare;                /* (rows)                                             */
    char *scratch;
};

static char *take(struct workspace *w, size_t bytes)
{
    char *part = w->memory ? w->memory + w->bytes : NULL;
    if (bytes > FASTGRU_TOO_LARGE >> 1 || w->bytes > FASTGRU_TOO_LARGE >> 1)
        w->bytes = FASTGRU_TOO_LARGE;
    else
        w->bytes += fastgru_lines(bytes);
    return part;
}

/* Timesteps of a clock. */
static ptrdiff_t clock_steps(
    const struct fastgru_network *network, const struct fastgru_network_call *run, int number)
{
    const struct fastgru_clock *clock;
    if (number == 0)
        return run->timesteps;
    clock = network->clocks + number;
    if (clock->input > 0)
        return run->inputs[clock->input - 1].timesteps;
    return clock->from < 0 ? clock->steps
        : (clock_steps(network, run, clock->from) - clock->span) / clock->stride + 1;
}

/* Timesteps of a value; 1 if it has none. */
static ptrdiff_t steps_of(
    const struct fastgru_network *network, const struct fastgru_network_call *run, int value)
{
    return network->values[value].last ? 1 : clock_steps(network, run, network->values[value].clock);
}

/* 1 if the call masks some of what the node reads. */
static int is_masked(const struct fastgru_network_call *run, const struct fastgru_node *node)
{
    return node->mask > 0 || (node->mask == FASTGRU_CALL_MASK && (run->mask || run->lengths));
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
    return !is_masked(run, node)
        && (value->last || (value->output >= 0 && steps_of(network, run, node->output) == 1));
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
    if (!run->lengths || network->clock_count > 1)
        return run->timesteps;
    for (int i = 0; i < network->output_count; ++i)
        if (!network->values[network->outputs[i]].last)
            return run->timesteps;
    for (int n = 0; n < network->node_count; ++n) {
        const struct fastgru_node *node = network->nodes + n;
        if (node->kind != FASTGRU_GRU) {
            if (fastgru_needs_all(network, node) || fastgru_past(node))
                return run->timesteps;   /* reads steps that are masked                        */
            continue;
        }
        if (node->mask != FASTGRU_CALL_MASK)
            return run->timesteps;
        if (!node->layer->kernels->full_tile)  /* bits depend on how many steps a product is of     */
            least = FASTGRU_CHUNK_ROWS;
        if (!network->values[node->output].last && node->go_backwards != node->reverse_output)
            return run->timesteps;   /* outputs do not belong to the timesteps of the input        */
    }
    for (ptrdiff_t row = 0; row < run->batch; ++row)
        most = run->lengths[row] > most ? run->lengths[row] : most;
    if (most >= run->timesteps)
        return run->timesteps;
    most = (most / least + 1) * least;
    return most < run->timesteps ? most : run->timesteps;
}

/* The layout of a run's memory: its bytes and, unless `memory` is NULL, where its parts lie. */
static struct workspace laid_out(
    const struct fastgru_network *network, const struct fastgru_network_call *run, char *memory)
{
    const ptrdiff_t batch = run->batch;
    struct workspace w;
    size_t step_bytes = 1, all = 0, scratch = 0;
    ptrdiff_t longest = 1;
    memset(&w, 0, sizeof w);
    w.memory = memory;
    w.rows = batch;
    if (network->node_count > 1 && batch > RUN_ROWS) {
        const ptrdiff_t blocks = batch / RUN_ROWS + (batch % RUN_ROWS != 0);
        w.rows = (batch / blocks + (batch % blocks != 0) + 7) / 8 * 8;
    }
    for (int v = network->input_count; v < network->value_count; ++v) {
        const struct fastgru_value *value = network->values + v;
        const size_t bytes = fastgru_product(fastgru_product((size_t)w.rows, (size_t)value->width), value->itemsize);
        if (value->output < 0 && !value->whole) {
            step_bytes = bytes > step_bytes ? bytes : step_bytes;
            all = all + bytes < all ? FASTGRU_TOO_LARGE : all + bytes;
        }
    }
    step_bytes = all / 2 > step_bytes ? all / 2 : step_bytes;  /* all together are at most two chunks of bytes */
    w.steps = (ptrdiff_t)(network->chunk_bytes / step_bytes);
    w.steps = w.steps < network->chunk_steps ? network->chunk_steps : w.steps;
    for (int c = 0; c < network->clock_count || c < 1; ++c) {
        const ptrdiff_t steps = clock_steps(network, run, c);
        longest = steps > longest ? steps : longest;
    }
    w.steps = w.steps < longest ? w.steps : longest;

    w.values = (char **)(void *)take(&w, (size_t)network->value_count * sizeof(char *));
    w.states = (char **)(void *)take(&w, (size_t)network->node_count * sizeof(char *));
    w.seen = (unsigned char **)(void *)take(&w, (size_t)network->node_count * sizeof(char *));
    for (int v = network->input_count; v < network->value_count; ++v) {
        const struct fastgru_value *value = network->values + v;
        const size_t steps = value->last ? 1 : (size_t)(value->whole ? steps_of(network, run, v) : w.steps);
        const size_t row = fastgru_product((size_t)value->width, value->itemsize);
        char *part = value->output >= 0 ? NULL
            : take(&w, fastgru_product(fastgru_product((size_t)w.rows, row), steps));
        if (memory)
            w.values[v] = part;
    }
    for (int n = 0; n < network->node_count; ++n) {
        const struct fastgru_node *node = network->nodes + n;
        const int alone = is_alone(network, n);
        char *state = NULL, *seen = NULL;
        size_t bytes = 0;
        if (node->kind == FASTGRU_GRU) {
            const size_t row = (size_t)node->layer->units * network->values[node->output].itemsize;
            if (!memory)             /* scratch is the last part: where it ends is of no use later */
                bytes = (run->lengths && node->mask == FASTGRU_CALL_MASK
                         ? fastgru_ragged_scratch_size : fastgru_scratch_size)(
                    node->layer, w.rows, alone ? steps_of(network, run, node->input) : w.steps);
            if ((!is_state(network, run, node) && (!alone || gives_state(network, run, node)))
                    || node->initial || node->final)
                state = take(&w, fastgru_product((size_t)w.rows, row));
            if (is_masked(run, node))
                seen = take(&w, (size_t)w.rows);
        } else {
            const struct fastgru_value *x = network->values + node->input;
            const size_t row = fastgru_product(
                fastgru_product((size_t)fastgru_past(node), (size_t)x->width), x->itemsize);
            if (!memory)
                bytes = fastgru_node_scratch(node, x->width, x->itemsize);
            if (row)
                state = take(&w, fastgru_product((size_t)w.rows, row));
        }
        scratch = bytes > scratch ? bytes : scratch;
        if (memory) {
            w.states[n] = state;
            w.seen[n] = (unsigned char *)seen;
        }
    }
    if (run->lengths) {
        const size_t bytes = fastgru_product((size_t)w.rows, sizeof(ptrdiff_t));
        w.lengths = (ptrdiff_t *)(void *)take(&w, 2 * bytes);
        w.clipped = (ptrdiff_t *)(void *)take(&w, bytes);
        w.spare = (ptrdiff_t *)(void *)take(&w, 2 * bytes);
    }
    w.scratch = take(&w, scratch);
    return w;
}

size_t fastgru_workspace(const struct fastgru_network *network, const struct fastgru_network_call *run)
{
    struct fastgru_network_call needed = *run;
    needed.timesteps = needed_steps(network, run);
    return laid_out(network, &needed, NULL).bytes;
}

/* ---- a run ------------------------------------------------------------------------------------ */

/* What a run's chunk is. */
struct chunk {
    ptrdiff_t first_row;
    ptrdiff_t rows;
    ptrdiff_t first;                 /* timestep                                           */
    ptrdiff_t steps;
};

/* Where the steps from `time` on of a block's rows of a value lie. */
static struct part part_of(
    const struct fastgru_network *network, const struct fastgru_network_call *run, const struct workspace *w,
    int number, const struct chunk *chunk, ptrdiff_t time)
{
    const struct fastgru_value *value = network->values + number;
    struct part part;
    ptrdiff_t first_row = chunk->first_row;
    part.width = value->width;
    part.itemsize = value->itemsize;
    if (number == 0) {
        part.data = (char *)(uintptr_t)run->x;
        part.batch_stride = run->x_batch_stride;
        part.time_stride = run->x_time_stride;
    } else if (number < network->input_count) {
        const struct fastgru_input *input = run->inputs + number - 1;
        part.data = (char *)(uintptr_t)input->data;
        part.batch_stride = input->batch_stride;
        part.time_stride = value->last ? 0 : input->time_stride;
    } else if (value->output >= 0) {
        part.data = (char *)run->out[value->output];
        part.batch_stride = run->out_batch_stride[value->output];
        part.time_stride = run->out_time_stride[value->output];
    } else {
        part.data = w->values[number];
        part.batch_stride = value->width;
        part.time_stride = value->last ? 0 : chunk->rows * value->width;
        first_row = 0;
        time = value->whole ? time : time - chunk->first;
    }
    part.data += (first_row * part.batch_stride + time * part.time_stride) * (ptrdiff_t)value->itemsize;
    return part;
}

/* What is masked of a node's part. */
static struct masking mask_of(
    const struct fastgru_network *network, const struct fastgru_network_call *run, const struct workspace *w,
    const struct fastgru_node *node, const struct chunk *chunk)
{
    struct masking mask;
    memset(&mask, 0, sizeof mask);
    mask.first = chunk->first;
    if (node->mask > 0) {
        const struct part part = part_of(network, run, w, node->mask, chunk, chunk->first);
        mask.bytes = (const unsigned char *)part.data;
        mask.batch_stride = part.batch_stride;
        mask.time_stride = part.time_stride;
    } else if (node->mask == FASTGRU_CALL_MASK && run->mask) {
        mask.bytes = run->mask + chunk->first_row * run->mask_batch_stride + chunk->first * run->mask_time_stride;
        mask.batch_stride = run->mask_batch_stride;
        mask.time_stride = run->mask_time_stride;
    } else if (node->mask == FASTGRU_CALL_MASK && run->lengths) {
        mask.lengths = run->lengths + chunk->first_row;
    }
    return mask;
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
    const struct masking mask = mask_of(network, run, w, node, chunk);
    const char *initial = (const char *)run->initial_states[node->state];
    char *state = (char *)run->states[node->state];
    struct part x, out;
    struct fastgru_call call;
    memset(&call, 0, sizeof call);
    x = part_of(network, run, w, node->input, chunk, chunk->first);
    out = part_of(network, run, w, node->output, chunk,
                          node->reverse_output ? steps_of(network, run, node->input) - 1 - chunk->first : chunk->first);
    out.data += (size_t)node->column * itemsize;
    state = state ? state + offset : w->states[n] ? w->states[n] : is_state(network, run, node) ? out.data : NULL;
    call.batch = chunk->rows;
    call.timesteps = chunk->steps;
    call.x = x.data;
    call.x_batch_stride = x.batch_stride;
    call.x_time_stride = x.time_stride;
    call.initial_state = chunk->first ? state : initial ? initial + offset : NULL;
    if (node->initial && !chunk->first) {
        const struct part given = part_of(network, run, w, node->initial, chunk, 0);
        for (ptrdiff_t row = 0; row < chunk->rows; ++row)
            memcpy(state + (size_t)row * width, at(&given, row, 0), width);
        call.initial_state = state;
    }
    call.state = state;
    call.go_backwards = node->go_backwards;
    call.zero_output_for_mask = node->zero_output_for_mask;
    call.seen = w->seen[n];
    call.walk = run->walk;
    call.scratch = w->scratch;
    call.mask = mask.bytes;
    call.mask_batch_stride = mask.batch_stride;
    call.mask_time_stride = mask.time_stride;
    if (mask.lengths) {
        call.lengths = w->clipped;
        call.rows = w->lengths + chunk->rows;
    }
    if (!gives_state(network, run, node)) {
        call.out = out.data;
        call.out_batch_stride = out.batch_stride;
        call.out_time_stride = value->last ? 0 : node->reverse_output ? -out.time_stride : out.time_stride;
    }
    fastgru_sequence(node->layer, &call);
    run->walk = call.walk;
    if (!call.out && state != out.data)  /* the last output is the state */
        for (ptrdiff_t row = 0; row < chunk->rows; ++row)
            memcpy(out.data + row * out.batch_stride * (ptrdiff_t)itemsize, state + (size_t)row * width, width);
    if (node->final) {
        const struct part final = part_of(network, run, w, node->final, chunk, 0);
        for (ptrdiff_t row = 0; row < chunk->rows; ++row)
            memcpy(at(&final, row, 0), state + (size_t)row * width, width);
    }
}

/* Any other node on a chunk. */
static void run_other(
    const struct fastgru_network *network, const struct fastgru_network_call *run, const struct workspace *w, int n,
    const struct chunk *chunk)
{
    const struct fastgru_node *node = network->nodes + n;
    const int whole = fastgru_needs_all(network, node);
    struct work work;
    work.node = node;
    work.rows = chunk->rows;
    work.x_steps = whole ? steps_of(network, run, node->input) : chunk->steps;
    work.steps = whole ? steps_of(network, run, node->output) : chunk->steps;
    work.x = part_of(network, run, w, node->input, chunk, chunk->first);
    work.y = reads_two(node) ? part_of(network, run, w, node->other, chunk, chunk->first) : work.x;
    work.out = part_of(network, run, w, node->output, chunk, chunk->first);
    work.mask = mask_of(network, run, w, node, chunk);
    work.scratch = w->scratch;
    work.past = NULL;
    if (fastgru_past(node)) {
        const size_t row = (size_t)(fastgru_past(node) * work.x.width) * work.x.itemsize;
        const char *initial = (const char *)run->initial_states[node->state];
        char *state = (char *)run->states[node->state];
        work.past = state ? state + (size_t)chunk->first_row * row : w->states[n];
        if (!chunk->first && !initial)
            memset(work.past, 0, (size_t)chunk->rows * row);
        else if (!chunk->first)
            memmove(work.past, initial + (size_t)chunk->first_row * row, (size_t)chunk->rows * row);
    }
    fastgru_run_node(&work);
}

/* The lengths that are left of a chunk. */
static void clip(const struct workspace *w, const struct chunk *chunk)
{
    for (ptrdiff_t i = 0; i < chunk->rows; ++i) {
        const ptrdiff_t left = w->lengths[i] - chunk->first;
        w->clipped[i] = left < 0 ? 0 : left < chunk->steps ? left : chunk->steps;
    }
}

/* One step of a single GRU without masks: the same as below, but faster, as it lays out no workspace. */
static void run_step(const struct fastgru_network *network, struct fastgru_network_call *run)
{
    const struct fastgru_node *node = network->nodes;
    const size_t itemsize = network->values[1].itemsize, width = (size_t)node->layer->units * itemsize;
    const ptrdiff_t out_stride = run->out_batch_stride[0] * (ptrdiff_t)itemsize;
    char *state = (char *)run->states[0], *out = (char *)run->out[0];
    struct fastgru_call call;
    memset(&call, 0, sizeof call);
    state = state ? state : run->out_batch_stride[0] == node->layer->units ? out : (char *)run->memory;
    call.batch = run->batch;
    call.timesteps = 1;
    call.x = run->x;
    call.x_batch_stride = run->x_batch_stride;
    call.x_time_stride = run->x_time_stride;
    call.initial_state = run->initial_states[0];
    call.state = state;
    call.go_backwards = node->go_backwards;
    call.walk = run->walk;
    call.scratch = (char *)run->memory + (state == (char *)run->memory ? fastgru_lines((size_t)run->batch * width) : 0);
    fastgru_sequence(node->layer, &call);
    run->walk = call.walk;
    for (ptrdiff_t row = 0; state != out && row < run->batch; ++row)
        memcpy(out + row * out_stride, state + (size_t)row * width, width);
}

void fastgru_run(const struct fastgru_network *network, struct fastgru_network_call *asked)
{
    if (network->node_count == 1 && network->nodes->kind == FASTGRU_GRU && asked->timesteps == 1 && !asked->mask
            && !asked->lengths && !network->nodes->initial && !network->nodes->final) {
        run_step(network, asked);
        return;
    }
    struct fastgru_network_call needed = *asked, *run = &needed;
    needed.timesteps = needed_steps(network, asked);
    const struct workspace w = laid_out(network, run, (char *)run->memory);
    struct chunk chunk;
    for (chunk.first_row = 0; chunk.first_row < run->batch; chunk.first_row += w.rows) {
        const ptrdiff_t left = run->batch - chunk.first_row;
        int end;
        chunk.rows = left < w.rows ? left : w.rows;
        if (run->lengths)
            fastgru_order(chunk.rows, run->lengths + chunk.first_row, w.lengths, w.spare);
        for (int n = 0; n < network->node_count; ++n)
            if (w.seen[n])
                memset(w.seen[n], 0, (size_t)chunk.rows);
        for (int start = 0; start < network->node_count; start = end) {
            const int clock = fastgru_clock_of(network, network->nodes + start);
            const ptrdiff_t all = clock < 0 ? 1 : clock_steps(network, run, clock);
            ptrdiff_t steps = all;
            for (end = start + 1; end < network->node_count
                    && network->nodes[end].segment == network->nodes[start].segment; ++end)
                steps = w.steps;
            for (chunk.first = 0; chunk.first < all; chunk.first += steps) {
                chunk.steps = all - chunk.first < steps ? all - chunk.first : steps;
                if (run->lengths)
                    clip(&w, &chunk);
                for (int n = start; n < end; ++n)
                    if (network->nodes[n].kind == FASTGRU_GRU)
                        run_gru(network, run, &w, n, &chunk);
                    else
                        run_other(network, run, &w, n, &chunk);
            }
        }
    }
    asked->walk = run->walk;
}
