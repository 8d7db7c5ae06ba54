/* shared_panels.c - few rows with helpers: a phase is x.kernel of some timesteps, or one timestep, and a unit some panels
 * of weights. */

#include "shared.h"

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

/* Panels of a unit: two units for each thread, or more, and no more than there may be; four panels of one row make a full
 * tile. */
static ptrdiff_t unit_of(ptrdiff_t panels, int threads)
{
    const ptrdiff_t least = (panels + FASTGRU_UNITS - 1) / FASTGRU_UNITS;
    const ptrdiff_t unit = panels >= 8 * threads ? 4 : panels >= 4 * threads ? 2 : 1;
    return unit < least ? least : unit;
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
    phase->patience += FASTGRU_LEAST_PATIENCE;
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

void fastgru_plan_panels(struct job *job)
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
        places->work[i] = fastgru_take_part(places, sizeof(struct shared_work));
        places->states[i] = fastgru_take_part(places, state_bytes(layer, job->rows));
        places->actions[i] = fastgru_take_part(places, (size_t)job->rows);
    }
    places->x[0] = fastgru_take_part(places, (size_t)(job->rows * job->steps * layer->features) * itemsize);
    places->xw = fastgru_take_part(places, (size_t)(job->rows * job->steps) * fastgru_xw_bytes(layer));
    places->reset = fastgru_take_part(places, (size_t)job->rows * fastgru_step_width(layer) * itemsize);
    places->scratch = fastgru_take_part(places, job->scratch_bytes * (size_t)job->threads);
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
