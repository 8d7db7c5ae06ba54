/* shared.h - a job: a GRU's call that helpers share, as rows or as panels of weights. */

#ifndef FASTGRU_SHARED_H
#define FASTGRU_SHARED_H

#include "sequence.h"
#include "team.h"

#define FASTGRU_LEAST_PATIENCE 15e3  /* nanoseconds that the leader waits for a unit, at least */

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
    ptrdiff_t first_unit;            /* rows: the number of the first one in a phase       */
    const ptrdiff_t *order;          /* rows: (batch)  by their lengths; or NULL           */
    size_t scratch_bytes;            /* of a thread                                        */
    struct places places;
    char *memory;
    unsigned char *seen;             /* panels: (rows)                                     */
    double step_nanoseconds;         /* of all rows, alone                                 */
    void (*fill)(struct job *job, struct item *item, struct fastgru_phase *phase);
    int (*advance)(const struct job *job, struct item *item);
    void (*finish)(struct job *job, const struct item *item);
    int (*recover)(struct job *job, struct fastgru_team *team, struct item *item, const char *old);
};

/* Two jobs of rows that run side by side; the first one's functions are those of both. */
struct job_of_two {
    struct job job;
    struct job each[2];
    size_t works[2];                 /* in the team's memory: what each does, by slots     */
};

/* How jobs are cut, and how much memory they take beyond what their places take already. */
HIDDEN void fastgru_plan_rows(struct job *job);
HIDDEN void fastgru_plan_two(struct job_of_two *two);
HIDDEN void fastgru_plan_panels(struct job *job);

/* ---- in common ------------------------------------------------------------------------------------ */

static inline size_t fastgru_take_part(struct places *places, size_t bytes)
{
    const size_t place = places->bytes;
    places->bytes += fastgru_lines(bytes);
    return place;
}

/* The timestep that an item begins with, in the order of x. */
static inline ptrdiff_t start_of(const struct job *job, const struct item *item)
{
    return job->call->go_backwards ? job->call->timesteps - item->first - item->steps : item->first;
}

/* The call's row of a row of an item. */
static inline ptrdiff_t row_of(const struct job *job, const struct item *item, ptrdiff_t row)
{
    return job->order ? job->order[item->first_row + row] : item->first_row + row;
}

/* x := that of an item, (rows, steps, features) */
static inline void copy_x(const struct job *job, const struct item *item, char *x)
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
static inline void enter(struct job *job, const struct item *item)
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
static inline void leave(struct job *job, const struct item *item, int states)
{
    const struct fastgru_call *call = job->call;
    const size_t bytes = state_bytes(job->layer, 1);
    const char *state = job->memory + job->places.states[states];
    for (ptrdiff_t row = 0; call->state && row < item->rows; ++row, state += bytes)
        memcpy(element(call->state, row_of(job, item, row) * job->layer->units, job->layer), state, bytes);
}

#endif
