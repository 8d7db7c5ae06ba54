/* workspace.c - where the values, states and scratch of a run lie in its memory. */

#include <stdint.h>
#include <string.h>

#include "workspace.h"

enum { RUN_ROWS = 128 };             /* of a block, if there are several nodes             */

static char *take(struct workspace *w, size_t bytes)
{
    char *part = w->memory ? w->memory + w->bytes : NULL;
    if (bytes > FASTGRU_TOO_LARGE >> 1 || w->bytes > FASTGRU_TOO_LARGE >> 1)
        w->bytes = FASTGRU_TOO_LARGE;
    else
        w->bytes += fastgru_lines(bytes);
    return part;
}

ptrdiff_t fastgru_clock_steps(
    const struct fastgru_network *network, const struct fastgru_network_call *run, int number)
{
    const struct fastgru_clock *clock;
    if (number == 0)
        return run->timesteps;
    clock = network->clocks + number;
    if (clock->input >= 0)
        return run->inputs[clock->input - 1].timesteps;
    return clock->from < 0 ? clock->steps
        : (fastgru_clock_steps(network, run, clock->from) - clock->span) / clock->stride + 1;
}

/* Timesteps that a run computes. With lengths, if nothing reads an output of later timesteps, these are the timesteps of
 * the longest row and at least one more, at which every row is masked. */
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
        most = run->lengths[row] - run->first > most ? run->lengths[row] - run->first : most;
    if (most >= run->timesteps)
        return run->timesteps;
    most = (most / least + 1) * least;
    return most < run->timesteps ? most : run->timesteps;
}

size_t fastgru_workspace(const struct fastgru_network *network, const struct fastgru_network_call *run)
{
    const ptrdiff_t batch = run->batch;
    ptrdiff_t longest;               /* of all clocks                                      */
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
    longest = w.timesteps;
    for (int c = 1; c < network->clock_count; ++c) {
        const ptrdiff_t steps = fastgru_clock_steps(network, run, c);
        longest = steps > longest ? steps : longest;
    }
    w.steps = w.steps < longest ? w.steps : longest;

    w.values = (struct part *)(void *)take(&w, (size_t)network->value_count * sizeof(struct part));
    w.calls = (struct fastgru_call *)(void *)take(&w, (size_t)network->node_count * sizeof(struct fastgru_call));
    w.states = (char **)(void *)take(&w, (size_t)network->node_count * sizeof(char *));
    w.seen = (unsigned char **)(void *)take(&w, (size_t)network->node_count * sizeof(char *));
    for (int v = network->input_count; v < network->value_count; ++v) {
        const struct fastgru_value *value = network->values + v;
        const ptrdiff_t through = value->clock ? steps_of(network, run, v) : w.timesteps;
        const size_t steps = value->last ? 1 : (size_t)(value->whole ? through : w.steps);
        const size_t row = fastgru_product((size_t)value->width, value->itemsize);
        char *part = value->output >= 0 ? NULL
            : take(&w, fastgru_product(fastgru_product((size_t)w.rows, row), steps));
        if (w.memory) {
            const struct part own = {part, value->width, value->last ? 0 : value->width, 1, !value->whole,
                                     value->width, value->itemsize};
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
            const int other = network->values[node->input].clock != 0;
            const ptrdiff_t through = other ? steps_of(network, run, node->input) : w.timesteps;
            const int ragged = run->lengths && node->mask == FASTGRU_CALL_MASK;
            bytes = (ragged ? fastgru_ragged_scratch_size : fastgru_scratch_size)(
                node->layer, w.rows, alone ? through : w.steps);
            if (node->initial || node->final
                    || (!is_state(network, run, node) && (!alone || gives_state(network, run, node))))
                state = take(&w, fastgru_product((size_t)w.rows, row));
            if (is_masked(run, node))
                seen = take(&w, (size_t)w.rows);
        } else {
            const struct fastgru_value *x = network->values + node->input;
            const size_t row = fastgru_product(
                fastgru_product((size_t)fastgru_past(node), (size_t)x->width), x->itemsize);
            bytes = fastgru_node_scratch(node, x->width, x->itemsize);
            if (row)
                state = take(&w, fastgru_product((size_t)w.rows, row));
        }
        scratch = bytes > scratch ? bytes : scratch;
        if (w.memory) {
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
    if (w.memory) {
        memset(w.calls, 0, (size_t)network->node_count * sizeof(struct fastgru_call));
        for (int n = 0; n < network->node_count; ++n) {
            w.calls[n].go_backwards = network->nodes[n].go_backwards;
            w.calls[n].zero_output_for_mask = network->nodes[n].zero_output_for_mask;
            w.calls[n].lengths = network->nodes[n].mask == FASTGRU_CALL_MASK ? w.clipped : NULL;
            w.calls[n].seen = w.seen[n];
            w.calls[n].scratch = w.scratch;
        }
        memcpy(w.memory, &w, sizeof w);
    }
    return w.bytes;
}

