/* sequence.c - the loop over time of one GRU: which rows and steps a pass is for, and where they lie.
 *
 * Blocks of rows go through all timesteps together; the steps go by chunks whose x.kernel is computed ahead, unless
 * fastgru_blocking finds that not worth while. Rows and elements are of any format: arrays are addressed in bytes. */

#include "sequence.h"

/* ---- masks -------------------------------------------------------------------------------------- */

int fastgru_decide(
    const struct fastgru_call *call, ptrdiff_t first_row, ptrdiff_t rows, ptrdiff_t time, unsigned char *seen,
    unsigned char *actions)
{
    const unsigned char *mask = actions;
    ptrdiff_t stride = 1;
    int any = 0;
    if (call->mask) {
        mask = call->mask + first_row * call->mask_batch_stride + time * call->mask_time_stride;
        stride = call->mask_batch_stride;
    } else {
        for (ptrdiff_t i = 0; i < call->batch; ++i)
            if (call->rows[i] >= first_row && call->rows[i] < first_row + rows)
                actions[call->rows[i] - first_row] = time < call->lengths[i];
    }
    for (ptrdiff_t row = 0; row < rows; ++row) {
        const int steps = mask[row * stride] != 0;
        any |= steps;
        seen[row] |= (unsigned char)steps;
        actions[row] = steps ? FASTGRU_ROW_STEPS
            : seen[row] && !call->zero_output_for_mask ? FASTGRU_ROW_KEEPS : FASTGRU_ROW_ZEROES;
    }
    return any;
}

/* The outputs of a step in which no row takes part. */
static void skip(const struct fastgru_layer *layer, const struct fastgru_pass *pass)
{
    for (ptrdiff_t row = 0; pass->out && row < pass->rows; ++row) {
        char *out = element(pass->out, row * pass->out_stride, layer);
        if (pass->actions[row] == FASTGRU_ROW_KEEPS)
            memcpy(out, element(pass->h, row * layer->units, layer), state_bytes(layer, 1));
        else
            memset(out, 0, state_bytes(layer, 1));
    }
}

/* ---- all steps of all rows ------------------------------------------------------------------------ */

/* All timesteps of the rows from `first_row` on, at most a block. */
static void run_block(
    const struct fastgru_layer *layer, struct fastgru_call *call, const struct fastgru_blocks *blocks,
    ptrdiff_t first_row)
{
    const ptrdiff_t rows = call->batch - first_row < blocks->rows ? call->batch - first_row : blocks->rows;
    const ptrdiff_t timesteps = call->timesteps, chunk = blocks->steps ? blocks->steps : 1;
    const int masked = call->mask || call->lengths;
    const struct fastgru_scratch scratch = fastgru_lay_out_scratch(layer, blocks, (char *)call->scratch);
    const char *x = element(call->x, first_row * call->x_batch_stride, layer);
    const char *initial = call->initial_state ? element(call->initial_state, first_row * layer->units, layer) : NULL;
    char *spare = scratch.states[0];
    char *state = call->state ? element(call->state, first_row * layer->units, layer) : scratch.states[1];
    unsigned char *seen = call->seen ? call->seen + first_row : scratch.seen;
    struct fastgru_projection projection;
    struct fastgru_pass pass;
    memset(&pass, 0, sizeof pass);
    pass.rows = rows;
    pass.x_rows = blocks->steps ? 0 : rows;
    pass.fetch = fastgru_weights(layer) >= FASTGRU_SOME_BYTES;
    pass.scratch = scratch.step;
    pass.xw = scratch.xw;
    pass.xw_stride = fastgru_xw_width(layer);
    pass.out_stride = call->out_batch_stride;
    if (masked) {
        if (!call->seen)
            memset(seen, 0, (size_t)rows);
        pass.actions = scratch.actions;
    }

    /* Two buffers alternate; the last step, if none is skipped, writes to `state`. */
    char *next = timesteps % 2 ? state : spare, *other = timesteps % 2 ? spare : state;
    pass.h = initial;
    if (!initial || initial == next) {
        if (initial)
            memcpy(other, initial, state_bytes(layer, rows));
        else
            memset(other, 0, state_bytes(layer, rows));
        pass.h = other;
    }
    for (ptrdiff_t first = 0; first < timesteps; first += chunk) {
        const ptrdiff_t steps = timesteps - first < chunk ? timesteps - first : chunk;
        const ptrdiff_t start = call->go_backwards ? timesteps - first - steps : first;
        if (blocks->steps) {
            memset(&projection, 0, sizeof projection);
            projection.rows = rows;
            projection.steps = steps;
            projection.x = element(x, start * call->x_time_stride, layer);
            projection.x_batch_stride = call->x_batch_stride;
            projection.x_time_stride = call->x_time_stride;
            projection.xw = scratch.xw;
            projection.xw_stride = fastgru_xw_width(layer);
            projection.xw_time_stride = rows * projection.xw_stride;
            projection.backwards = call->walk++ & 1;
            layer->kernels->project(layer, &projection);
            pass.xw_stride = projection.xw_stride;
        }
        for (ptrdiff_t i = 0; i < steps; ++i) {
            const ptrdiff_t time = call->go_backwards ? start + steps - 1 - i : start + i;
            if (blocks->steps) {
                pass.xw = element(scratch.xw, (time - start) * projection.xw_time_stride, layer);
            } else {
                pass.x = element(x, time * call->x_time_stride, layer);
                pass.x_stride = call->x_batch_stride;
            }
            if (call->out)
                pass.out = element(call->out, first_row * call->out_batch_stride + (first + i) * call->out_time_stride,
                              layer);
            if (masked && !fastgru_decide(call, first_row, rows, time, seen, scratch.actions)) {
                skip(layer, &pass);
                continue;
            }
            pass.h_next = next;
            pass.backwards = call->walk++ & 1;
            layer->kernels->step(layer, &pass);
            pass.h = next;
            next = next == state ? spare : state;
        }
    }
    if (pass.h != state)
        memcpy(state, pass.h, state_bytes(layer, rows));
}

/* ---- rows of different lengths -------------------------------------------------------------------
 *
 * The longest first, so that the rows that take part in a step are always the first ones of a block. Where bits depend
 * on how many rows there are (full_tile is 0), lengths are a mask instead. */

/* The outputs of `steps` steps of a row, from `first` on in the order of the run: h, or zeros if it is NULL. */
static void put(
    const struct fastgru_layer *layer, const struct fastgru_call *call,
    ptrdiff_t row, ptrdiff_t first, ptrdiff_t steps,
    const char *h)                   /* (units)  or NULL                                   */
{
    if (!call->out_time_stride && steps > 1)
        steps = 1;
    for (ptrdiff_t step = first; call->out && step < first + steps; ++step) {
        char *out = element(call->out, row * call->out_batch_stride + step * call->out_time_stride, layer);
        if (h)
            memcpy(out, h, state_bytes(layer, 1));
        else
            memset(out, 0, state_bytes(layer, 1));
    }
}

/* A row before its first step. */
static void enter(
    const struct fastgru_layer *layer, const struct fastgru_call *call, ptrdiff_t row, ptrdiff_t length,
    char *h)                         /* (units)  overwritten: its state                    */
{
    if (call->initial_state)
        memcpy(h, element(call->initial_state, row * layer->units, layer), state_bytes(layer, 1));
    else
        memset(h, 0, state_bytes(layer, 1));
    if (call->go_backwards)
        put(layer, call, row, 0, call->timesteps - length, NULL);
}

/* A row after its last step. */
static void leave(
    const struct fastgru_layer *layer, const struct fastgru_call *call, ptrdiff_t row, ptrdiff_t length,
    const char *h)                   /* (units)  its state                                 */
{
    const int stepped = length || (call->seen && call->seen[row]);
    const char *kept = call->zero_output_for_mask || !stepped ? NULL : h;
    if (call->seen)
        call->seen[row] = (unsigned char)stepped;
    if (call->state)
        memcpy(element(call->state, row * layer->units, layer), h, state_bytes(layer, 1));
    if (!call->go_backwards)
        put(layer, call, row, length, call->timesteps - length, kept);
}

/* All timesteps of a block of rows, which is the call's rows from place `first` on, by length. It is not inlined, so that
 * the usual call needs few registers. */
OUTLINE void run_ragged(
    const struct fastgru_layer *layer, struct fastgru_call *call, const struct fastgru_blocks *blocks,
    ptrdiff_t first)
{
    const ptrdiff_t units = layer->units, features = layer->features, left = call->batch - first;
    const ptrdiff_t count = left < blocks->rows ? left : blocks->rows;
    const ptrdiff_t *lengths = call->lengths + first, *rows = call->rows + first;
    const ptrdiff_t most = lengths[0];
    const ptrdiff_t many = count > blocks->few ? lengths[blocks->few] : 0;  /* steps of more than few rows */
    const struct fastgru_scratch scratch = fastgru_lay_out_scratch(layer, blocks, (char *)call->scratch);
    char *h = scratch.states[0], *next = scratch.states[1];
    struct fastgru_projection projection;
    struct fastgru_pass pass;
    ptrdiff_t active = 0;            /* rows that take part in a step                      */
    memset(&pass, 0, sizeof pass);
    pass.fetch = fastgru_weights(layer) >= FASTGRU_SOME_BYTES;
    pass.scratch = scratch.step;
    pass.out_rows = rows;
    pass.out_stride = call->out_batch_stride;

    if (!call->go_backwards)
        for (; active < count; ++active)
            enter(layer, call, rows[active], lengths[active], element(h, active * units, layer));
    for (ptrdiff_t done = 0, steps; done < most; done += steps) {
        /* the next steps: all that many rows take part in, or a chunk of the others */
        const int few = call->go_backwards ? most - done > many : done >= many;
        const ptrdiff_t others = call->go_backwards ? most - done - many : most - done;
        steps = !few ? many : others < blocks->steps ? others : blocks->steps;
        const ptrdiff_t start = call->go_backwards ? most - done - steps : done;
        pass.x = scratch.x;
        pass.x_stride = features;
        pass.xw = scratch.xw;
        pass.xw_stride = fastgru_xw_width(layer);
        if (few) {
            memset(&projection, 0, sizeof projection);
            projection.rows = count < blocks->few ? count : blocks->few;
            projection.steps = steps;
            projection.x = element(call->x, start * call->x_time_stride, layer);
            projection.x_batch_stride = call->x_batch_stride;
            projection.x_time_stride = call->x_time_stride;
            projection.x_rows = rows;
            projection.lengths = lengths;
            projection.start = start;
            projection.xw = scratch.xw;
            projection.xw_stride = steps * pass.xw_stride;
            projection.xw_time_stride = pass.xw_stride;
            layer->kernels->project(layer, &projection);
            pass.xw_stride = projection.xw_stride;
        }
        for (ptrdiff_t step = 0; step < steps; ++step) {
            const ptrdiff_t time = call->go_backwards ? start + steps - 1 - step : start + step;
            for (; call->go_backwards && active < count && lengths[active] > time; ++active)
                enter(layer, call, rows[active], lengths[active], element(h, active * units, layer));
            for (; !call->go_backwards && lengths[active - 1] <= time; --active)
                leave(layer, call, rows[active - 1], lengths[active - 1], element(h, (active - 1) * units, layer));
            pass.rows = active;
            pass.x_rows = few ? 0 : active;
            for (ptrdiff_t i = 0; i < pass.x_rows; ++i)
                memcpy(element(scratch.x, i * features, layer),
                       element(call->x, rows[i] * call->x_batch_stride + time * call->x_time_stride, layer),
                       (size_t)features * layer->kernels->itemsize);
            if (few)
                pass.xw = element(scratch.xw, (time - start) * projection.xw_time_stride, layer);
            if (call->out)
                pass.out = element(call->out, (call->go_backwards ? call->timesteps - 1 - time : time)
                              * call->out_time_stride, layer);
            pass.h = h;
            pass.h_next = next;
            pass.backwards = call->walk++ & 1;
            layer->kernels->step(layer, &pass);
            next = h;
            h = (char *)pass.h_next;
        }
    }
    for (; call->go_backwards && active < count; ++active)  /* without a step */
        enter(layer, call, rows[active], 0, element(h, active * units, layer));
    for (ptrdiff_t i = 0; i < active; ++i)
        leave(layer, call, rows[i], lengths[i], element(h, i * units, layer));
}

/* ---- a call ------------------------------------------------------------------------------------------ */

/* Of a layer that may not be packed yet. */
size_t fastgru_scratch_size(const struct fastgru_layer *asked, ptrdiff_t batch, ptrdiff_t timesteps)
{
    const struct fastgru_layer laid_out = fastgru_laid_out(asked), *layer = &laid_out;
    const ptrdiff_t most = fastgru_block_rows(layer), ahead = (ptrdiff_t)fastgru_rows_ahead(layer);
    struct fastgru_blocks blocks = {batch < most ? batch : most, 0, 0, 0};
    const size_t all = (size_t)blocks.rows * (size_t)(timesteps < ahead ? timesteps : ahead);
    const size_t step = fastgru_step_width(layer) ? (size_t)blocks.rows : 0;
    const size_t chunk = timesteps < 2 ? 0 : all < (size_t)ahead ? all : (size_t)ahead;
    blocks.xw_rows = chunk > step ? chunk : step;
    return fastgru_lay_out_scratch(layer, &blocks, NULL).bytes;
}

size_t fastgru_ragged_scratch_size(const struct fastgru_layer *asked, ptrdiff_t batch, ptrdiff_t timesteps)
{
    const struct fastgru_layer laid_out = fastgru_laid_out(asked), *layer = &laid_out;
    const struct fastgru_blocks blocks = fastgru_ragged_blocking(layer, batch, timesteps);
    if (!layer->kernels->full_tile)
        return fastgru_scratch_size(layer, batch, timesteps);
    return fastgru_lay_out_scratch(layer, &blocks, NULL).bytes;
}

void fastgru_sequence(const struct fastgru_layer *layer, struct fastgru_call *call)
{
    struct fastgru_blocks blocks;
    if (call->lengths && layer->kernels->full_tile) {
        blocks = fastgru_ragged_blocking(layer, call->batch, call->timesteps);
        for (ptrdiff_t row = 0; row < call->batch; row += blocks.rows)
            run_ragged(layer, call, &blocks, row);
    } else {
        blocks = fastgru_blocking(layer, call->batch, call->timesteps);
        for (ptrdiff_t row = 0; row < call->batch; row += blocks.rows)
            run_block(layer, call, &blocks, row);
    }
}
