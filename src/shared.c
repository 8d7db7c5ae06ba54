/* shared.c - a GRU's call with helpers: how its work is cut into phases and units.
 *
 * Many rows are cut into pieces; a phase is some timesteps of all pieces, and a unit one of them. Few rows are not: a
 * phase is x.kernel of some timesteps, or one timestep (reset before, half of one), and a unit some panels of weights.
 *
 * A helper that has lost its CPU may go on at any time, even after the call. So nobody but the leader reads or writes
 * the caller's memory: x and masks are copied to the team's before a phase, outputs and states from it after one. All that
 * a phase reads stays as it is while it runs, so that it can be done again. */

#include "sequence.h"
#include "team.h"

enum {
    MANY_ROWS = 16,                  /* that are cut into pieces                           */
    PIECE_ROWS = 8,                  /* of one, at least                                   */
    FEW_UNITS = 128,                 /* whose panels are worth a phase for each step       */
    SPAN_BYTES = 1 << 20             /* of x and outputs of a phase                        */
};

static const double LEAST_PATIENCE = 15e3;  /* nanoseconds                                  */

/* What a phase is. */
struct item {
    ptrdiff_t first_row;             /* of the rows that go through time together          */
    ptrdiff_t rows;
    ptrdiff_t first;                 /* timestep in the order of the run                   */
    ptrdiff_t steps;
    ptrdiff_t step;                  /* panels: among those; -1: their x.kernel            */
    int half;                        /* panels: fastgru_step_half                          */
    int decided;                     /* panels: 1 if what rows do in the step is known     */
    int skipped;                     /* panels: 1 if none takes part in it                 */
    int from;                        /* the states that it starts from                     */
    int slot;                        /* 0 or 1: of memory that each phase has for itself   */
};

/* What its units are, in the team's memory. */
struct shared_work {
    const struct fastgru_layer *layer;
    struct fastgru_projection projection;
    struct fastgru_pass pass;
    struct fastgru_call call;
    ptrdiff_t panels;                /* or rows, of a unit ...                             */
    ptrdiff_t all;                   /* ... and of all                                     */
    char *scratch;                   /* of each thread                                     */
    size_t scratch_bytes;
    const unsigned char *seen;       /* (rows)  before the phase                           */
};

/* Where its parts lie in the team's memory, in bytes. */
struct places {
    size_t work[2];
    size_t x[2];                     /* (rows, steps, features)                            */
    size_t states[3];                /* (rows, units)                                      */
    size_t seen[3];                  /* rows: (rows)                                       */
    size_t scratch;                  /* of each thread                                     */
    size_t out[2];                   /* rows: (rows, steps, units)                         */
    size_t mask[2];                  /* rows: (rows, steps)                                */
    size_t lengths[2];               /* rows: (rows)                                       */
    size_t numbers[2];               /* rows: (rows)  0, 1, ...                            */
    size_t xw;                       /* panels: (steps, rows, xw_width)                    */
    size_t reset;                    /* panels: (rows, step_units, units)                  */
    size_t actions[2];               /* panels: (rows)                                     */
    size_t bytes;
};

struct job {
    const struct fastgru_layer *layer;
    struct fastgru_call *call;
    int threads;
    ptrdiff_t rows, steps;           /* of an item, at most                                */
    ptrdiff_t unit;                  /* rows of one                                        */
    const ptrdiff_t *order;          /* rows: (batch)  by their lengths; or NULL           */
    size_t scratch_bytes;            /* of a thread                                        */
    struct places places;
    char *memory;
    unsigned char *seen;             /* panels: (rows)                                     */
    double step_nanoseconds;         /* of all rows, alone                                 */
    int last;                        /* states at the end                                  */
    void (*fill)(struct job *job, struct item *item, struct fastgru_phase *phase);
    int (*advance)(const struct job *job, struct item *item);
    void (*finish)(struct job *job, const struct item *item);
    int (*recover)(struct job *job, struct fastgru_team *team, struct item *item, const char *old);
};

/* ---- in common ------------------------------------------------------------------------------------ */

static size_t take(struct places *places, size_t bytes)
{
    const size_t place = places->bytes;
    places->bytes += fastgru_lines(bytes);
    return place;
}

/* The timestep that an item begins with, in the order of x. */
static ptrdiff_t start_of(const struct job *job, const struct item *item)
{
    return job->call->go_backwards ? job->call->timesteps - item->first - item->steps : item->first;
}

/* The call's row of a row of an item. */
static ptrdiff_t row_of(const struct job *job, const struct item *item, ptrdiff_t row)
{
    return job->order ? job->order[item->first_row + row] : item->first_row + row;
}

/* x := that of an item, (rows, steps, features) */
static void copy_x(const struct job *job, const struct item *item, char *x)
{
    const struct fastgru_call *call = job->call;
    const size_t step_bytes = (size_t)job->layer->features * job->layer->kernels->itemsize;
    const ptrdiff_t start = start_of(job, item);
    const int whole = call->x_time_stride == job->layer->features;
    for (ptrdiff_t row = 0; row < item->rows; ++row) {
        const ptrdiff_t place = row_of(job, item, row) * call->x_batch_stride + start * call->x_time_stride;
        for (ptrdiff_t step = 0; step < item->steps; step += whole ? item->steps : 1) {
            const size_t bytes = step_bytes * (size_t)(whole ? item->steps : 1);
            memcpy(x, element(call->x, place + step * call->x_time_stride, job->layer), bytes);
            x += bytes;
        }
    }
}

/* The states of an item's rows before the first timestep. */
static void enter(struct job *job, const struct item *item)
{
    const struct fastgru_call *call = job->call;
    const size_t bytes = state_bytes(job->layer, 1);
    char *states = job->memory + job->places.states[item->from];
    for (ptrdiff_t row = 0; row < item->rows; ++row, states += bytes)
        if (call->initial_state)
            memcpy(states, element(call->initial_state, row_of(job, item, row) * job->layer->units, job->layer), bytes);
        else
            memset(states, 0, bytes);
}

/* Their states after the last one. */
static void leave(struct job *job, const struct item *item, int states)
{
    const struct fastgru_call *call = job->call;
    const size_t bytes = state_bytes(job->layer, 1);
    const char *state = job->memory + job->places.states[states];
    for (ptrdiff_t row = 0; call->state && row < item->rows; ++row, state += bytes)
        memcpy(element(call->state, row_of(job, item, row) * job->layer->units, job->layer), state, bytes);
}

static void run(struct job *job, struct fastgru_team *team, struct item now)
{
    struct item ahead;
    struct fastgru_phase phase;
    int more;
    job->memory = fastgru_team_memory(team);
    job->fill(job, &now, &phase);
    fastgru_team_open(team, &phase);
    for (;;) {
        ahead = now;
        ahead.slot = !now.slot;
        more = job->advance(job, &ahead);
        if (more) {
            job->fill(job, &ahead, &phase);
            fastgru_team_open(team, &phase);
        }
        if (!fastgru_team_run(team)) {
            const char *old = job->memory;
            job->memory = fastgru_team_memory(team);
            if (!job->recover(job, team, &now, old)) {
                job->fill(job, &now, &phase);
                fastgru_team_open(team, &phase);
                continue;
            }
            if (more) {              /* the lost phase is over, the one after it is to be opened again */
                job->fill(job, &ahead, &phase);
                fastgru_team_open(team, &phase);
            }
        }
        job->finish(job, &now);
        if (!more)
            break;
        now = ahead;
    }
}

/* ---- pieces of rows --------------------------------------------------------------------------------- */

static void run_rows(const void *what, int thread, ptrdiff_t first, ptrdiff_t end)
{
    const struct shared_work *work = (const struct shared_work *)what;
    const struct fastgru_layer *layer = work->layer;
    const ptrdiff_t row = first * work->panels, rows = (end * work->panels < work->all ? end * work->panels : work->all) - row;
    struct fastgru_call call = work->call;
    call.batch = rows;
    call.x = element(call.x, row * call.x_batch_stride, layer);
    call.initial_state = element(call.initial_state, row * layer->units, layer);
    call.state = element(call.state, row * layer->units, layer);
    call.out = call.out ? element(call.out, row * call.out_batch_stride, layer) : NULL;
    call.mask = call.mask ? call.mask + row * call.mask_batch_stride : NULL;
    call.lengths = call.lengths ? call.lengths + row : NULL;
    if (call.seen) {
        call.seen += row;
        memcpy(call.seen, work->seen + row, (size_t)rows);
    }
    call.scratch = work->scratch + (size_t)thread * work->scratch_bytes;
    fastgru_sequence(layer, &call);
}

static void fill_rows(struct job *job, struct item *item, struct fastgru_phase *phase)
{
    const struct fastgru_layer *layer = job->layer;
    const struct fastgru_call *call = job->call;
    const struct places *places = &job->places;
    char *memory = job->memory;
    const ptrdiff_t start = start_of(job, item);
    const int to = (item->from + 1) % 3, slot = item->slot;
    struct shared_work *work = (struct shared_work *)(void *)(memory + places->work[slot]);
    memset(work, 0, sizeof *work);
    work->layer = layer;
    work->panels = job->unit;
    work->all = item->rows;
    work->scratch = memory + places->scratch;
    work->scratch_bytes = job->scratch_bytes;
    work->call.timesteps = item->steps;
    work->call.x = memory + places->x[slot];
    work->call.x_time_stride = layer->features;
    work->call.x_batch_stride = item->steps * layer->features;
    work->call.go_backwards = call->go_backwards;
    work->call.zero_output_for_mask = call->zero_output_for_mask;
    work->call.initial_state = memory + places->states[item->from];
    work->call.state = memory + places->states[to];
    if (call->out) {
        work->call.out = memory + places->out[slot];
        work->call.out_time_stride = call->out_time_stride ? layer->units : 0;
        work->call.out_batch_stride = (call->out_time_stride ? item->steps : 1) * layer->units;
    }
    copy_x(job, item, memory + places->x[slot]);
    if (!item->first)
        enter(job, item);
    if (call->mask || call->lengths) {
        unsigned char *seen = (unsigned char *)memory + places->seen[item->from];
        for (ptrdiff_t row = 0; !item->first && row < item->rows; ++row)
            seen[row] = call->seen && call->seen[row_of(job, item, row)];
        work->seen = seen;
        work->call.seen = (unsigned char *)memory + places->seen[to];
    }
    if (call->mask) {
        unsigned char *mask = (unsigned char *)memory + places->mask[slot];
        work->call.mask = mask;
        work->call.mask_time_stride = 1;
        work->call.mask_batch_stride = item->steps;
        for (ptrdiff_t row = 0; row < item->rows; ++row)
            for (ptrdiff_t step = 0; step < item->steps; ++step)
                *mask++ = call->mask[(item->first_row + row) * call->mask_batch_stride
                                     + (start + step) * call->mask_time_stride];
    } else if (call->lengths) {
        ptrdiff_t *lengths = (ptrdiff_t *)(void *)(memory + places->lengths[slot]);
        ptrdiff_t *numbers = (ptrdiff_t *)(void *)(memory + places->numbers[slot]);
        work->call.lengths = lengths;
        work->call.rows = numbers;
        for (ptrdiff_t row = 0; row < item->rows; ++row) {
            const ptrdiff_t left = call->lengths[item->first_row + row] - start;
            lengths[row] = left < 0 ? 0 : left < item->steps ? left : item->steps;
            numbers[row] = row;
        }
    }
    phase->run = run_rows;
    phase->what = work;
    phase->units = (item->rows + job->unit - 1) / job->unit;
    phase->patience = LEAST_PATIENCE
        + job->step_nanoseconds * (double)item->steps * (double)job->unit / (double)call->batch / 4;
    phase->flags = 1;
}

static int advance_rows(const struct job *job, struct item *item)
{
    const ptrdiff_t timesteps = job->call->timesteps, batch = job->call->batch;
    item->first += item->steps;
    item->from = (item->from + 1) % 3;
    if (item->first == timesteps) {
        item->first_row += item->rows;
        item->rows = batch - item->first_row < job->rows ? batch - item->first_row : job->rows;
        item->first = 0;
        item->from = (item->from + 1) % 3;  /* which no phase uses that is not over              */
    }
    item->steps = timesteps - item->first < job->steps ? timesteps - item->first : job->steps;
    return item->rows > 0;
}

static void finish_rows(struct job *job, const struct item *item)
{
    const struct fastgru_layer *layer = job->layer;
    const struct fastgru_call *call = job->call;
    const int at_end = item->first + item->steps == call->timesteps, to = (item->from + 1) % 3;
    const ptrdiff_t steps = call->out_time_stride ? item->steps : 1;
    const int whole = steps == 1 || call->out_time_stride == layer->units;
    const char *out = job->memory + job->places.out[item->slot];
    const size_t bytes = state_bytes(layer, whole ? steps : 1);
    for (ptrdiff_t row = 0; call->out && (call->out_time_stride || at_end) && row < item->rows; ++row) {
        const ptrdiff_t place = row_of(job, item, row) * call->out_batch_stride + item->first * call->out_time_stride;
        for (ptrdiff_t step = 0; step < (whole ? 1 : steps); ++step, out += bytes)
            memcpy(element(call->out, place + step * call->out_time_stride, layer), out, bytes);
    }
    if (!at_end)
        return;
    leave(job, item, to);
    for (ptrdiff_t row = 0; call->seen && row < item->rows; ++row)
        call->seen[row_of(job, item, row)] = ((unsigned char *)job->memory + job->places.seen[to])[row];
}

/* Copy units that are done, and do the others: none of them is done twice. */
static int recover_rows(struct job *job, struct fastgru_team *team, struct item *item, const char *old)
{
    const struct fastgru_layer *layer = job->layer;
    const struct places *places = &job->places;
    const int from = item->from, to = (from + 1) % 3;
    const size_t state = state_bytes(layer, 1), out = state * (size_t)(job->call->out_time_stride ? item->steps : 1);
    struct fastgru_phase phase;
    memcpy(job->memory + places->states[from], old + places->states[from], state * (size_t)item->rows);
    memcpy(job->memory + places->seen[from], old + places->seen[from], (size_t)item->rows);
    job->fill(job, item, &phase);
    for (ptrdiff_t unit = 0; unit < phase.units; ++unit) {
        const size_t first = (size_t)(unit * job->unit), left = (size_t)item->rows - first;
        const size_t rows = left < (size_t)job->unit ? left : (size_t)job->unit;
        const size_t state_place = places->states[to] + first * state, seen_place = places->seen[to] + first;
        const size_t out_place = places->out[item->slot] + first * out;
        if (!fastgru_team_finished(team, unit)) {
            phase.run(phase.what, 0, unit, unit + 1);
            continue;
        }
        memcpy(job->memory + state_place, old + state_place, rows * state);
        memcpy(job->memory + seen_place, old + seen_place, rows);
        if (job->call->out)
            memcpy(job->memory + out_place, old + out_place, rows * out);
    }
    return 1;
}

static void plan_rows(struct job *job)
{
    const struct fastgru_layer *layer = job->layer;
    const struct fastgru_call *call = job->call;
    const size_t itemsize = layer->kernels->itemsize;
    const ptrdiff_t most = (ptrdiff_t)job->threads * FASTGRU_BLOCK_ROWS;
    const ptrdiff_t blocks = (call->batch + most - 1) / most;
    const ptrdiff_t shares = fastgru_weights(layer) < FASTGRU_SOME_BYTES ? 2 * job->threads : job->threads;
    struct places *places = &job->places;
    size_t step_bytes;
    job->rows = ((call->batch + blocks - 1) / blocks + 7) / 8 * 8;
    job->rows = job->rows < call->batch ? job->rows : call->batch;
    job->unit = ((job->rows + shares - 1) / shares + 3) / 4 * 4;
    job->unit = job->unit < PIECE_ROWS ? PIECE_ROWS : job->unit;
    step_bytes = (size_t)job->rows * (size_t)(layer->features + layer->units) * itemsize;
    job->steps = (ptrdiff_t)(SPAN_BYTES / step_bytes);
    job->steps = job->steps < 1 ? 1 : job->steps < call->timesteps ? job->steps : call->timesteps;
    job->scratch_bytes = fastgru_lines((call->lengths ? fastgru_ragged_scratch_size : fastgru_scratch_size)(
        layer, job->unit, job->steps));
    for (int i = 0; i < 2; ++i) {
        const size_t cells = (size_t)(job->rows * job->steps);
        places->work[i] = take(places, sizeof(struct shared_work));
        places->x[i] = take(places, cells * (size_t)layer->features * itemsize);
        places->out[i] = take(places, cells * (size_t)layer->units * itemsize);
        places->mask[i] = take(places, cells);
        places->lengths[i] = take(places, (size_t)job->rows * sizeof(ptrdiff_t));
        places->numbers[i] = take(places, (size_t)job->rows * sizeof(ptrdiff_t));
    }
    for (int i = 0; i < 3; ++i) {
        places->states[i] = take(places, state_bytes(layer, job->rows));
        places->seen[i] = take(places, (size_t)job->rows);
    }
    places->scratch = take(places, job->scratch_bytes * (size_t)job->threads);
    job->order = call->lengths ? call->rows : NULL;
    job->fill = fill_rows;
    job->advance = advance_rows;
    job->finish = finish_rows;
    job->recover = recover_rows;
}

/* ---- panels ---------------------------------------------------------------------------------------- */

static void run_projection(const void *what, int thread, ptrdiff_t first, ptrdiff_t end)
{
    const struct shared_work *work = (const struct shared_work *)what;
    struct fastgru_projection projection = work->projection;
    (void)thread;
    projection.first_panel = first * work->panels;
    projection.end_panel = end * work->panels < work->all ? end * work->panels : work->all;
    work->layer->kernels->project(work->layer, &projection);
}

static void run_step(const void *what, int thread, ptrdiff_t first, ptrdiff_t end)
{
    const struct shared_work *work = (const struct shared_work *)what;
    struct fastgru_pass pass = work->pass;
    pass.first_panel = first * work->panels;
    pass.end_panel = end * work->panels < work->all ? end * work->panels : work->all;
    pass.factors = work->scratch_bytes ? work->scratch + (size_t)thread * work->scratch_bytes : NULL;
    if (first < end)
        work->layer->kernels->step(work->layer, &pass);
}

/* x.kernel of some steps, from x with these strides. */
static struct fastgru_projection projection_of(
    const struct job *job, ptrdiff_t rows, ptrdiff_t steps, const void *x, ptrdiff_t batch_stride, ptrdiff_t time_stride,
    char *xw)
{
    struct fastgru_projection projection;
    memset(&projection, 0, sizeof projection);
    projection.rows = rows;
    projection.steps = steps;
    projection.x = x;
    projection.x_batch_stride = batch_stride;
    projection.x_time_stride = time_stride;
    projection.xw = xw;
    projection.xw_stride = fastgru_xw_width(job->layer);
    projection.xw_time_stride = rows * projection.xw_stride;
    return projection;
}

/* Where x.kernel of one of an item's steps lies, in bytes from the first. */
static size_t xw_place(const struct job *job, const struct item *item, ptrdiff_t step)
{
    const ptrdiff_t place = job->call->go_backwards ? item->steps - 1 - step : step;
    return (size_t)(place * item->rows) * fastgru_xw_bytes(job->layer);
}

/* Panels of a unit: two units for each thread, or more; four panels of one row make a full tile. */
static ptrdiff_t unit_of(ptrdiff_t panels, int threads)
{
    return panels >= 8 * threads ? 4 : panels >= 4 * threads ? 2 : 1;
}

static void fill_panels(struct job *job, struct item *item, struct fastgru_phase *phase)
{
    const struct fastgru_layer *layer = job->layer;
    struct fastgru_call *call = job->call;
    const struct places *places = &job->places;
    const int masked = call->mask || call->lengths;
    char *memory = job->memory, *xw = memory + places->xw;
    struct shared_work *work = (struct shared_work *)(void *)(memory + places->work[item->slot]);
    unsigned char *actions = (unsigned char *)memory + places->actions[(item->first + item->step) & 1];
    memset(work, 0, sizeof *work);
    work->layer = layer;
    work->all = (ptrdiff_t)layer->panel_count;
    work->panels = unit_of(work->all, job->threads);
    work->scratch = memory + places->scratch;
    work->scratch_bytes = job->scratch_bytes;
    phase->what = work;
    phase->patience = job->step_nanoseconds / 2;
    phase->flags = 0;
    if (item->step < 0) {
        char *x = memory + places->x[0];
        if (!item->first)
            enter(job, item);
        copy_x(job, item, x);
        work->projection = projection_of(
            job, item->rows, item->steps, x, item->steps * layer->features, layer->features, xw);
        if (layer->kernels->quantized) {
            work->projection.part = FASTGRU_PROJECT_FACTORS;
            layer->kernels->project(layer, &work->projection);
            work->projection.part = FASTGRU_PROJECT_PRODUCTS;
        }
        phase->run = run_projection;
        phase->patience *= (double)item->steps / 2;
    } else {
        const ptrdiff_t start = start_of(job, item);
        struct fastgru_pass *pass = &work->pass;
        if (masked && !item->decided)
            item->skipped = !fastgru_decide(
                call, 0, item->rows, call->go_backwards ? start + item->steps - 1 - item->step : start + item->step,
                job->seen, actions);
        item->decided = 1;
        pass->rows = item->rows;
        pass->xw = xw + xw_place(job, item, item->step);
        pass->xw_stride = fastgru_xw_width(layer);
        pass->h = memory + places->states[item->from];
        pass->h_next = memory + places->states[!item->from];
        pass->scratch = memory + places->reset;
        pass->actions = masked ? actions : NULL;
        pass->fetch = fastgru_weights(layer) >= FASTGRU_SOME_BYTES;
        pass->backwards = call->walk++ & 1;
        pass->half = item->half;
        if (item->half == FASTGRU_UPDATE_HALF) {
            work->all = (ptrdiff_t)fastgru_candidate_count(layer);
            work->panels = unit_of(work->all, job->threads);
        }
        phase->run = run_step;
    }
    phase->patience += LEAST_PATIENCE;
    phase->units = item->skipped ? 0 : (work->all + work->panels - 1) / work->panels;
}

static int advance_panels(const struct job *job, struct item *item)
{
    const ptrdiff_t timesteps = job->call->timesteps;
    if (item->step >= 0 && item->half == FASTGRU_RESET_HALF && !item->skipped) {
        item->half = FASTGRU_UPDATE_HALF;
        return 1;
    }
    if (item->step >= 0 && !item->skipped)
        item->from = !item->from;
    item->decided = item->skipped = 0;
    item->half = job->layer->reset_after ? FASTGRU_WHOLE_STEP : FASTGRU_RESET_HALF;
    if (++item->step < item->steps)
        return 1;
    item->first += item->steps;
    item->steps = timesteps - item->first < job->steps ? timesteps - item->first : job->steps;
    item->step = -1;
    return item->first < timesteps;
}

/* The outputs of a step. */
static void finish_panels(struct job *job, const struct item *item)
{
    const struct fastgru_layer *layer = job->layer;
    const struct fastgru_call *call = job->call;
    const ptrdiff_t time = item->first + item->step;
    const int masked = call->mask || call->lengths, at_end = time + 1 == call->timesteps;
    const unsigned char *actions = (const unsigned char *)job->memory + job->places.actions[time & 1];
    const int states = item->skipped ? item->from : !item->from;
    const char *h = job->memory + job->places.states[states];
    if (item->step < 0 || (item->half == FASTGRU_RESET_HALF && !item->skipped))
        return;
    for (ptrdiff_t row = 0; call->out && (call->out_time_stride || at_end) && row < item->rows; ++row) {
        char *out = element(call->out, row * call->out_batch_stride + time * call->out_time_stride, layer);
        if (masked && actions[row] == FASTGRU_ROW_ZEROES)
            memset(out, 0, state_bytes(layer, 1));
        else
            memcpy(out, h + state_bytes(layer, row), state_bytes(layer, 1));
    }
    if (!at_end)
        return;
    for (ptrdiff_t row = 0; call->state && row < item->rows; ++row)
        memcpy(element(call->state, row * layer->units, layer), h + state_bytes(layer, row), state_bytes(layer, 1));
}

/* A step is done again from its beginning; reset before, its x.kernel has been overwritten. */
static int recover_panels(struct job *job, struct fastgru_team *team, struct item *item, const char *old)
{
    const struct fastgru_layer *layer = job->layer;
    const struct fastgru_call *call = job->call;
    const struct places *places = &job->places;
    memcpy(job->memory + places->states[item->from], old + places->states[item->from], state_bytes(layer, item->rows));
    (void)team;
    if (item->step < 0)
        return 0;
    const size_t one = (size_t)item->rows * fastgru_xw_bytes(layer), place = xw_place(job, item, item->step);
    const size_t next = layer->reset_after ? 0 : one;  /* bytes that are not as they were            */
    const size_t first = call->go_backwards ? 0 : place + next;
    const size_t end = call->go_backwards ? place + one - next : (size_t)item->steps * one;
    memcpy(job->memory + places->xw + first, old + places->xw + first, end - first);
    if (!layer->reset_after) {
        const ptrdiff_t time = start_of(job, item) + (ptrdiff_t)(place / one);
        struct fastgru_projection projection = projection_of(
            job, item->rows, 1, element(call->x, time * call->x_time_stride, layer), call->x_batch_stride,
            call->x_time_stride, job->memory + places->xw + place);
        layer->kernels->project(layer, &projection);
        item->half = FASTGRU_RESET_HALF;
    }
    if (call->mask || call->lengths)  /* deciding again would see the rows of the next step   */
        memcpy(job->memory + places->actions[(item->first + item->step) & 1],
               old + places->actions[(item->first + item->step) & 1], (size_t)item->rows);
    return 0;
}

static void plan_panels(struct job *job)
{
    const struct fastgru_layer *layer = job->layer;
    const struct fastgru_call *call = job->call;
    const size_t itemsize = layer->kernels->itemsize;
    const size_t ahead = fastgru_rows_ahead(layer) / (size_t)call->batch;
    struct places *places = &job->places;
    job->rows = call->batch;
    job->steps = (ptrdiff_t)ahead < call->timesteps ? (ptrdiff_t)ahead : call->timesteps;
    job->steps = job->steps < 1 ? 1 : job->steps;
    job->scratch_bytes = layer->kernels->quantized
        ? fastgru_lines((size_t)(call->batch * fastgru_quantized_width(layer->units)) * itemsize) : 0;
    for (int i = 0; i < 2; ++i) {
        places->work[i] = take(places, sizeof(struct shared_work));
        places->states[i] = take(places, state_bytes(layer, job->rows));
        places->actions[i] = take(places, (size_t)job->rows);
    }
    places->x[0] = take(places, (size_t)(job->rows * job->steps * layer->features) * itemsize);
    places->xw = take(places, (size_t)(job->rows * job->steps) * fastgru_xw_bytes(layer));
    places->reset = take(places, (size_t)job->rows * fastgru_step_width(layer) * itemsize);
    places->scratch = take(places, job->scratch_bytes * (size_t)job->threads);
    job->seen = call->seen;
    if (!job->seen) {
        job->seen = (unsigned char *)call->scratch;
        memset(job->seen, 0, (size_t)job->rows);
    }
    job->fill = fill_panels;
    job->advance = advance_panels;
    job->finish = finish_panels;
    job->recover = recover_panels;
}

/* ---- a call ------------------------------------------------------------------------------------------ */

/* Nanoseconds that a step takes alone: as many as its operations do, or its weights from the cache. */
static double step_nanoseconds(const struct fastgru_layer *layer, ptrdiff_t rows)
{
    const double lanes = (double)layer->kernels->vlen * (layer->kernels->quantized ? 2 : 1);
    const double operations = 6.0 * (double)layer->units * (double)(layer->features + layer->units) * (double)rows;
    const double products = operations / (6 * lanes), reads = (double)fastgru_weights(layer) / 30;
    return products > reads ? products : reads;
}

int fastgru_share(const struct fastgru_layer *layer, struct fastgru_call *call, int threads)
{
    struct fastgru_team *team;
    struct job job;
    struct item first;
    ptrdiff_t steps = 0;             /* of all rows                                        */
    const int many = call->batch >= MANY_ROWS;
    if (!layer->kernels->full_tile || (!many && layer->units < FEW_UNITS))
        return 0;
    for (ptrdiff_t i = 0; call->lengths && i < call->batch; ++i)
        steps += call->lengths[i];
    if (!many && call->lengths && 4 * steps < 3 * call->batch * call->lengths[0])
        return 0;                    /* shorter rows would be computed to the end          */
    if (!call->lengths)
        steps = call->batch * call->timesteps;
    memset(&job, 0, sizeof job);
    job.layer = layer;
    job.call = call;
    job.threads = threads;
    job.step_nanoseconds = step_nanoseconds(layer, call->batch);
    (many ? plan_rows : plan_panels)(&job);
    team = fastgru_team_take(
        threads, job.places.bytes, job.step_nanoseconds * (double)steps / (double)call->batch);
    if (!team)
        return 0;
    memset(&first, 0, sizeof first);
    first.rows = job.rows;
    first.steps = job.steps;
    first.step = -1;
    run(&job, team, first);
    fastgru_team_give_back(team);
    return 1;
}
