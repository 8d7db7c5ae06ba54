/* layer.c - a layer and its calls, on whichever kernels it has. */

#include <string.h>

#include "layout.h"

const char *const fastgru_activation_names[FASTGRU_ACTIVATION_COUNT] = {
#define NAME(name) #name,
    FASTGRU_ACTIVATIONS(NAME)
#undef NAME
};

size_t fastgru_packed_size(const struct fastgru_layer *layer)
{
    struct fastgru_layer copy = *layer;
    return fastgru_lay_out(&copy, NULL);
}

void fastgru_pack(
    struct fastgru_layer *layer, const void *kernel, const void *recurrent_kernel, const void *bias, void *memory)
{
    fastgru_lay_out(layer, (char *)memory);
    layer->kernels->pack(layer, kernel, recurrent_kernel, bias);
}

/* A merge sort: stable, and its memory does not grow with the timesteps. */
void fastgru_order(ptrdiff_t rows, const ptrdiff_t *steps, ptrdiff_t *lengths, ptrdiff_t *spare)
{
    ptrdiff_t *from = lengths, *to = spare;
    for (ptrdiff_t i = 0; i < rows; ++i) {
        from[i] = steps[i];
        from[rows + i] = i;
    }
    for (ptrdiff_t width = 1; width < rows; width *= 2) {
        for (ptrdiff_t first = 0; first < rows; first += 2 * width) {
            const ptrdiff_t middle = first + width < rows ? first + width : rows;
            const ptrdiff_t end = middle + width < rows ? middle + width : rows;
            ptrdiff_t a = first, b = middle;
            for (ptrdiff_t i = first; i < end; ++i) {
                const ptrdiff_t next = a < middle && (b == end || from[a] >= from[b]) ? a++ : b++;
                to[i] = from[next];
                to[rows + i] = from[rows + next];
            }
        }
        from = to;
        to = to == spare ? lengths : spare;
    }
    if (from != lengths)
        memcpy(lengths, from, 2 * (size_t)rows * sizeof *lengths);
}

int fastgru_set_lengths(struct fastgru_call *call, const ptrdiff_t *steps, ptrdiff_t *memory)
{
    ptrdiff_t *given = memory, *lengths = memory + call->batch;
    for (ptrdiff_t row = 0; row < call->batch; ++row) {
        given[row] = steps[row];     /* read once: another thread may write there          */
        if (given[row] < 0 || given[row] > call->timesteps)
            return 0;
    }
    fastgru_order(call->batch, given, lengths, lengths + 2 * call->batch);
    call->lengths = lengths;
    call->rows = lengths + call->batch;
    return 1;
}

void fastgru_step(
    const struct fastgru_layer *layer, ptrdiff_t batch, const void *x, void *state, unsigned *walk, void *scratch)
{
    struct fastgru_call call;
    memset(&call, 0, sizeof call);
    call.batch = batch, call.timesteps = 1;
    call.x = x, call.x_batch_stride = layer->features;
    call.initial_state = call.state = state;
    call.walk = *walk, call.scratch = scratch;
    fastgru_sequence(layer, &call);
    *walk = call.walk;
}
