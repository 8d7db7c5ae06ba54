/* shared_rows.c - rows with helpers: a phase is some timesteps of all of them, and a unit a piece of the rows; or of two
 * GRUs that do not depend on each other, and a unit one of them. */

#include "shared.h"

enum {
    PIECE_ROWS = 8,                  /* of a unit, at least                                */
    SPAN_BYTES = 1 << 20             /* of x and outputs of a phase                        */
};

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
    phase->patience = FASTGRU_LEAST_PATIENCE
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
        if (!fastgru_team_finished(team, job->first_unit + unit)) {
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

void fastgru_plan_rows(struct job *job)
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
    if (!job->unit) {
        job->unit = ((job->rows + shares - 1) / shares + 3) / 4 * 4;
        job->unit = job->unit < PIECE_ROWS ? PIECE_ROWS : job->unit;
    }
    step_bytes = (size_t)job->rows * (size_t)(layer->features + layer->units) * itemsize;
    job->steps = (ptrdiff_t)(SPAN_BYTES / step_bytes);
    job->steps = job->steps < 1 ? 1 : job->steps < call->timesteps ? job->steps : call->timesteps;
    job->scratch_bytes = fastgru_lines((call->lengths ? fastgru_ragged_scratch_size : fastgru_scratch_size)(
        layer, job->unit, job->steps));
    for (int i = 0; i < 2; ++i) {
        const size_t cells = (size_t)(job->rows * job->steps);
        places->work[i] = fastgru_take_part(places, sizeof(struct shared_work));
        places->x[i] = fastgru_take_part(places, cells * (size_t)layer->features * itemsize);
        places->out[i] = fastgru_take_part(places, cells * (size_t)layer->units * itemsize);
        places->mask[i] = fastgru_take_part(places, cells);
        places->lengths[i] = fastgru_take_part(places, (size_t)job->rows * sizeof(ptrdiff_t));
        places->numbers[i] = fastgru_take_part(places, (size_t)job->rows * sizeof(ptrdiff_t));
    }
    for (int i = 0; i < 3; ++i) {
        places->states[i] = fastgru_take_part(places, state_bytes(layer, job->rows));
        places->seen[i] = fastgru_take_part(places, (size_t)job->rows);
    }
    places->scratch = fastgru_take_part(places, job->scratch_bytes * (size_t)job->threads);
    job->order = call->lengths ? call->rows : NULL;
    job->fill = fill_rows;
    job->advance = advance_rows;
    job->finish = finish_rows;
    job->recover = recover_rows;
}

/* ---- two GRUs ---------------------------------------------------------------------------------------- */

static void run_two(const void *what, int thread, ptrdiff_t first, ptrdiff_t end)
{
    const void *const *works = (const void *const *)what;
    for (; first < end; ++first)
        run_rows(works[first], thread, 0, 1);
}

static void fill_two(struct job *job, struct item *item, struct fastgru_phase *phase)
{
    struct job_of_two *two = (struct job_of_two *)job;
    const void **works = (const void **)(void *)(job->memory + two->works[item->slot]);
    double patience = 0;
    for (int i = 0; i < 2; ++i) {
        two->each[i].memory = job->memory;
        fill_rows(&two->each[i], item, phase);
        works[i] = phase->what;
        patience = phase->patience > patience ? phase->patience : patience;
    }
    phase->run = run_two;
    phase->what = works;
    phase->units = 2;
    phase->patience = patience;
}

static int advance_two(const struct job *job, struct item *item)
{
    return advance_rows(&((const struct job_of_two *)job)->each[0], item);
}

static void finish_two(struct job *job, const struct item *item)
{
    for (int i = 0; i < 2; ++i)
        finish_rows(&((struct job_of_two *)job)->each[i], item);
}

static int recover_two(struct job *job, struct fastgru_team *team, struct item *item, const char *old)
{
    for (int i = 0; i < 2; ++i) {
        struct job *each = &((struct job_of_two *)job)->each[i];
        each->memory = job->memory;
        recover_rows(each, team, item, old);
    }
    return 1;
}

void fastgru_plan_two(struct job_of_two *two)
{
    struct job *job = &two->job;
    for (int i = 0; i < 2; ++i)
        two->works[i] = fastgru_take_part(&job->places, 2 * sizeof(void *));
    for (int i = 0; i < 2; ++i) {
        struct job *each = &two->each[i];
        each->threads = job->threads;
        each->unit = each->call->batch;
        each->first_unit = i;
        each->places.bytes = job->places.bytes;
        fastgru_plan_rows(each);
        job->places.bytes = each->places.bytes;
    }
    job->rows = two->each[0].rows;
    job->steps = two->each[0].steps < two->each[1].steps ? two->each[0].steps : two->each[1].steps;
    two->each[0].steps = two->each[1].steps = job->steps;
    job->fill = fill_two;
    job->advance = advance_two;
    job->finish = finish_two;
    job->recover = recover_two;
}
