/* sequence.h - the loop over time on packed weights: which rows and steps a pass is for, and where they lie.
 *
 * Blocks of rows go through all timesteps together; the steps go by chunks whose x.kernel is computed ahead, unless
 * fastgru_blocking finds that not worth while. */

/* xw := x.kernel + bias for `steps` timesteps of the rows of a block, from x on. */
static void FORMAT(project_chunk)(
    const struct fastgru_layer *layer, const struct fastgru_call *call, const struct fastgru_pass *block,
    const real *x,                   /* (rows, steps, features)  strides as the call's     */
    ptrdiff_t steps)
{
    /* tiles lie along the longer of both axes, a pass each; panels serve as many passes as there is room for */
    const int by_rows = block->rows >= steps;
    const ptrdiff_t count = by_rows ? steps : block->rows;
    const ptrdiff_t step_xw = block->rows * block->xw_stride;
    struct fastgru_pass pass = *block, passes[FASTGRU_PASSES];
    pass.rows = pass.x_rows = by_rows ? block->rows : steps;
    pass.x_stride = by_rows ? call->x_batch_stride : call->x_time_stride;
    pass.xw_stride = by_rows ? block->xw_stride : step_xw;
    for (ptrdiff_t i = 0; i < count; ++i) {
        const ptrdiff_t place = i % FASTGRU_PASSES;
        pass.x = x + i * (by_rows ? call->x_time_stride : call->x_batch_stride);
        pass.xw = (real *)block->xw + i * (by_rows ? step_xw : block->xw_stride);
        passes[place] = pass;
        if (place + 1 == FASTGRU_PASSES || i + 1 == count) {
            FORMAT(cover)(FORMAT(tiles_project), layer, fastgru_panel_count(layer), passes, place + 1);
            pass.backwards = !pass.backwards;
        }
    }
}

/* One timestep of the rows of a pass. */
static void FORMAT(step)(const struct fastgru_layer *layer, const struct fastgru_pass *pass)
{
    if (layer->reset_after) {
        FORMAT(cover)(FORMAT(tiles_advance), layer, fastgru_panel_count(layer), pass, 1);
    } else {
        FORMAT(cover)(FORMAT(tiles_reset), layer, fastgru_panel_count(layer), pass, 1);
        FORMAT(cover)(FORMAT(tiles_update), layer, fastgru_candidate_count(layer), pass, 1);
    }
}

/* The actions of rows at one step; returns 1 if any of them steps. */
static int FORMAT(decide)(
    const struct fastgru_call *call, ptrdiff_t rows,
    const unsigned char *mask,       /* (rows)  call->mask_batch_stride apart              */
    unsigned char *seen,             /* (rows)  in and out: 1 once the row has stepped     */
    unsigned char *actions)          /* (rows)  overwritten                                */
{
    int any = 0;
    for (ptrdiff_t row = 0; row < rows; ++row) {
        const int steps = mask[row * call->mask_batch_stride] != 0;
        any |= steps;
        seen[row] |= (unsigned char)steps;
        actions[row] = steps ? FASTGRU_ROW_STEPS
            : seen[row] && !call->zero_output_for_mask ? FASTGRU_ROW_KEEPS : FASTGRU_ROW_ZEROES;
    }
    return any;
}

/* The outputs of a step in which no row takes part. */
static void FORMAT(skip)(const struct fastgru_layer *layer, const struct fastgru_pass *pass)
{
    const size_t bytes = (size_t)layer->units * sizeof(real);
    for (ptrdiff_t row = 0; pass->out && row < pass->rows; ++row) {
        real *out = (real *)pass->out + row * pass->out_stride;
        if (pass->actions[row] == FASTGRU_ROW_KEEPS)
            memcpy(out, (const real *)pass->h + row * layer->units, bytes);
        else
            memset(out, 0, bytes);
    }
}

/* All timesteps of the rows from `first_row` on, at most a block. */
static void FORMAT(run_block)(
    const struct fastgru_layer *layer, struct fastgru_call *call, const struct fastgru_blocks *blocks,
    ptrdiff_t first_row)
{
    const ptrdiff_t rows = call->batch - first_row < blocks->rows ? call->batch - first_row : blocks->rows;
    const ptrdiff_t timesteps = call->timesteps, chunk = blocks->steps ? blocks->steps : 1;
    const size_t state_bytes = (size_t)(rows * layer->units) * sizeof(real);
    const real *x = (const real *)call->x + first_row * call->x_batch_stride;
    const real *initial = call->initial_state
        ? (const real *)call->initial_state + first_row * layer->units : NULL;

    char *scratch = (char *)call->scratch;
    real *spare = (real *)scratch, *unwanted = (real *)(scratch + blocks->state_bytes);
    real *state = call->state ? (real *)call->state + first_row * layer->units : unwanted;
    char *rh = scratch + 2 * blocks->state_bytes;
    real *xw = (real *)(layer->reset_after ? rh : rh + blocks->state_bytes);
    unsigned char *actions = (unsigned char *)xw + blocks->xw_bytes;
    unsigned char *seen = call->seen ? call->seen + first_row : actions + rows;
    struct fastgru_pass pass;
    memset(&pass, 0, sizeof pass);
    pass.out_of_cache = fastgru_many_weights(layer);
    pass.rows = rows;
    pass.x_rows = blocks->steps ? 0 : rows;
    pass.rh = rh;
    pass.xw_stride = (ptrdiff_t)fastgru_panel_count(layer) * 3 * VLEN;
    pass.out_stride = call->out_batch_stride;
    if (call->mask) {
        if (!call->seen)
            memset(seen, 0, (size_t)rows);
        pass.actions = actions;
    }

    /* Two buffers alternate; the last step, if none is skipped, writes to `state`. */
    real *next = timesteps % 2 ? state : spare, *other = timesteps % 2 ? spare : state;
    pass.h = initial;
    if (!initial || initial == next) {
        if (initial)
            memcpy(other, initial, state_bytes);
        else
            memset(other, 0, state_bytes);
        pass.h = other;
    }
    for (ptrdiff_t first = 0; first < timesteps; first += chunk) {
        const ptrdiff_t steps = timesteps - first < chunk ? timesteps - first : chunk;
        const ptrdiff_t start = call->go_backwards ? timesteps - first - steps : first;
        pass.xw = xw;
        if (blocks->steps) {
            pass.backwards = call->walk++ & 1;
            FORMAT(project_chunk)(layer, call, &pass, x + start * call->x_time_stride, steps);
        }
        for (ptrdiff_t i = 0; i < steps; ++i) {
            const ptrdiff_t time = call->go_backwards ? start + steps - 1 - i : start + i;
            if (blocks->steps) {
                pass.xw = xw + (time - start) * rows * pass.xw_stride;
            } else {
                pass.x = x + time * call->x_time_stride;
                pass.x_stride = call->x_batch_stride;
            }
            if (call->out)
                pass.out = (real *)call->out + first_row * call->out_batch_stride
                    + (first + i) * call->out_time_stride;
            if (call->mask && !FORMAT(decide)(
                    call, rows, call->mask + first_row * call->mask_batch_stride + time * call->mask_time_stride,
                    seen, actions)) {
                FORMAT(skip)(layer, &pass);
                continue;
            }
            pass.h_next = next;
            pass.backwards = call->walk++ & 1;
            FORMAT(step)(layer, &pass);
            pass.h = next;
            next = next == state ? spare : state;
        }
    }
    if (pass.h != state)
        memcpy(state, pass.h, state_bytes);
}

/* ---- rows of different lengths -------------------------------------------------------
 *
 * The longest first, so that the rows that take part in a step are always the first ones of a block. */

/* The outputs of `steps` steps of a row, from `first` on in the order of the run: h, or zeros if it is NULL. */
static void FORMAT(put)(
    const struct fastgru_layer *layer, const struct fastgru_call *call,
    ptrdiff_t row, ptrdiff_t first, ptrdiff_t steps,
    const real *h)                   /* (units)  or NULL                                   */
{
    const size_t bytes = (size_t)layer->units * sizeof(real);
    if (!call->out_time_stride && steps > 1)
        steps = 1;
    for (ptrdiff_t step = first; call->out && step < first + steps; ++step) {
        real *out = (real *)call->out + row * call->out_batch_stride + step * call->out_time_stride;
        if (h)
            memcpy(out, h, bytes);
        else
            memset(out, 0, bytes);
    }
}

/* A row before its first step. */
static void FORMAT(enter)(
    const struct fastgru_layer *layer, const struct fastgru_call *call, ptrdiff_t row, ptrdiff_t length,
    real *h)                         /* (units)  overwritten: its state                    */
{
    const size_t bytes = (size_t)layer->units * sizeof(real);
    if (call->initial_state)
        memcpy(h, (const real *)call->initial_state + row * layer->units, bytes);
    else
        memset(h, 0, bytes);
    if (call->go_backwards)
        FORMAT(put)(layer, call, row, 0, call->timesteps - length, NULL);
}

/* A row after its last step. */
static void FORMAT(leave)(
    const struct fastgru_layer *layer, const struct fastgru_call *call, ptrdiff_t row, ptrdiff_t length,
    const real *h)                   /* (units)  its state                                 */
{
    const int stepped = length || (call->seen && call->seen[row]);
    const real *kept = call->zero_output_for_mask || !stepped ? NULL : h;
    if (call->seen)
        call->seen[row] = (unsigned char)stepped;
    if (call->state)
        memcpy((real *)call->state + row * layer->units, h, (size_t)layer->units * sizeof(real));
    if (!call->go_backwards)
        FORMAT(put)(layer, call, row, length, call->timesteps - length, kept);
}

/* xw := x.kernel + bias of `steps` steps from `start` on, of the rows that are as long: FASTGRU_PASSES at most. */
static void FORMAT(project_ragged)(
    const struct fastgru_layer *layer, const struct fastgru_call *call, const struct fastgru_pass *pass,
    const ptrdiff_t *rows,           /* (count)  which rows of the call                    */
    const ptrdiff_t *lengths,        /* (count)  the most first                            */
    ptrdiff_t count, ptrdiff_t start, ptrdiff_t steps)
{
    const ptrdiff_t row_stride = pass->xw_stride, xw_stride = row_stride / steps;
    struct fastgru_pass row = *pass, passes[FASTGRU_PASSES];
    ptrdiff_t i = 0;
    row.x_stride = call->x_time_stride;
    row.xw_stride = xw_stride;
    for (; i < count && lengths[i] > start; ++i) {
        row.rows = row.x_rows = lengths[i] - start < steps ? lengths[i] - start : steps;
        row.x = (const real *)call->x + rows[i] * call->x_batch_stride + start * call->x_time_stride;
        row.xw = (real *)pass->xw + i * row_stride;
        passes[i] = row;
    }
    FORMAT(cover)(FORMAT(tiles_project), layer, fastgru_panel_count(layer), passes, i);
}

/* All timesteps of a block of rows, which is the call's rows from place `first` on, by length. */
static void FORMAT(run_ragged)(
    const struct fastgru_layer *layer, struct fastgru_call *call, const struct fastgru_ragged *blocks,
    ptrdiff_t first)
{
    const ptrdiff_t units = layer->units, features = layer->features, left = call->batch - first;
    const ptrdiff_t count = left < blocks->rows ? left : blocks->rows;
    const ptrdiff_t *lengths = call->lengths + first, *rows = call->rows + first;
    const ptrdiff_t most = lengths[0];
    const ptrdiff_t many = count > blocks->few ? lengths[blocks->few] : 0;  /* steps of more than few rows */
    const ptrdiff_t xw_stride = (ptrdiff_t)fastgru_panel_count(layer) * 3 * VLEN;
    char *scratch = (char *)call->scratch, *rh = scratch + 2 * blocks->state_bytes;
    real *h = (real *)scratch, *next = (real *)(scratch + blocks->state_bytes);
    real *xw = (real *)(layer->reset_after ? rh : rh + blocks->state_bytes);
    real *x = (real *)((char *)xw + blocks->xw_bytes);
    struct fastgru_pass pass;
    ptrdiff_t active = 0;            /* rows that take part in a step                      */
    memset(&pass, 0, sizeof pass);
    pass.out_of_cache = fastgru_many_weights(layer);
    pass.rh = rh;
    pass.out_rows = rows;
    pass.out_stride = call->out_batch_stride;

    if (!call->go_backwards)
        for (; active < count; ++active)
            FORMAT(enter)(layer, call, rows[active], lengths[active], h + active * units);
    for (ptrdiff_t done = 0, steps; done < most; done += steps) {
        /* the next steps: all that many rows take part in, or a chunk of the others */
        const int few = call->go_backwards ? most - done > many : done >= many;
        const ptrdiff_t others = call->go_backwards ? most - done - many : most - done;
        steps = !few ? many : others < blocks->steps ? others : blocks->steps;
        const ptrdiff_t start = call->go_backwards ? most - done - steps : done;
        pass.x = x;
        pass.x_stride = features;
        pass.xw_stride = few ? steps * xw_stride : xw_stride;
        pass.xw = xw;
        if (few)
            FORMAT(project_ragged)(layer, call, &pass, rows, lengths, count, start, steps);
        for (ptrdiff_t step = 0; step < steps; ++step) {
            const ptrdiff_t time = call->go_backwards ? start + steps - 1 - step : start + step;
            for (; call->go_backwards && active < count && lengths[active] > time; ++active)
                FORMAT(enter)(layer, call, rows[active], lengths[active], h + active * units);
            for (; !call->go_backwards && lengths[active - 1] <= time; --active)
                FORMAT(leave)(layer, call, rows[active - 1], lengths[active - 1], h + (active - 1) * units);
            pass.rows = active;
            pass.x_rows = few ? 0 : active;
            for (ptrdiff_t i = 0; i < pass.x_rows; ++i)
                memcpy(x + i * features,
                       (const real *)call->x + rows[i] * call->x_batch_stride + time * call->x_time_stride,
                       (size_t)features * sizeof(real));
            if (few)
                pass.xw = xw + (time - start) * xw_stride;
            if (call->out)
                pass.out = (real *)call->out
                    + (call->go_backwards ? call->timesteps - 1 - time : time) * call->out_time_stride;
            pass.h = h;
            pass.h_next = next;
            pass.backwards = call->walk++ & 1;
            FORMAT(step)(layer, &pass);
            next = h;
            h = (real *)pass.h_next;
        }
    }
    for (; call->go_backwards && active < count; ++active)  /* without a step */
        FORMAT(enter)(layer, call, rows[active], 0, h + active * units);
    for (ptrdiff_t i = 0; i < active; ++i)
        FORMAT(leave)(layer, call, rows[i], lengths[i], h + i * units);
}

static void FORMAT(sequence)(const struct fastgru_layer *layer, struct fastgru_call *call)
{
    if (call->lengths) {
        const struct fastgru_ragged ragged = fastgru_ragged_blocking(layer, call->batch, call->timesteps);
        for (ptrdiff_t row = 0; row < call->batch; row += ragged.rows)
            FORMAT(run_ragged)(layer, call, &ragged, row);
        return;
    }
    const struct fastgru_blocks blocks = fastgru_blocking(layer, call->batch, call->timesteps);
    for (ptrdiff_t row = 0; row < call->batch; row += blocks.rows)
        FORMAT(run_block)(layer, call, &blocks, row);
}
