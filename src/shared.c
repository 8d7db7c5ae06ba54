/* shared.c - a GRU's call with helpers: how its work is cut into phases and units.
 *
 * Many rows are cut into pieces; a phase is some timesteps of all pieces, and a unit one of them. Few rows are not: a
 * phase is x.kernel of some timesteps, or one timestep (reset before, half of one), and a unit some panels of weights.
 *
 * A helper that has lost its CPU may go on at any time, even after the call. So nobody but the leader reads or writes
 * the caller's memory: x and masks are copied to the team's before a phase, outputs and states from it after one. All that
 * a phase reads stays as it is while it runs, so that it can be done again. */

#include "shared.h"

enum {
    MANY_ROWS = 16,                  /* that are cut into pieces                           */
    FEW_UNITS = 128                  /* whose panels are worth a phase for each step       */
};

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

/* ---- calls ------------------------------------------------------------------------------------------- */

/* Nanoseconds that a step takes alone: as many as its operations do, or its weights from the cache. */
static double step_nanoseconds(const struct fastgru_layer *layer, ptrdiff_t rows)
{
    const double lanes = (double)layer->kernels->vlen * (layer->kernels->quantized ? 2 : 1);
    const double operations = 6.0 * (double)layer->units * (double)(layer->features + layer->units) * (double)rows;
    const double products = operations / (6 * lanes), reads = (double)fastgru_weights(layer) / 30;
    return products > reads ? products : reads;
}

/* Run a job that has been cut; returns 0 if it is to run alone. */
static int run_with_team(struct job *job, double nanoseconds)
{
    struct fastgru_team *team = fastgru_team_take(job->threads, job->places.bytes, nanoseconds);
    struct item first;
    if (!team)
        return 0;
    memset(&first, 0, sizeof first);
    first.rows = job->rows;
    first.steps = job->steps;
    first.step = -1;
    run(job, team, first);
    fastgru_team_give_back(team);
    return 1;
}

int fastgru_share(const struct fastgru_layer *layer, struct fastgru_call *call, int threads)
{
    struct job job;
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
    (many ? fastgru_plan_rows : fastgru_plan_panels)(&job);
    return run_with_team(&job, job.step_nanoseconds * (double)steps / (double)call->batch);
}

int fastgru_share_two(const struct fastgru_layer *const layers[2], struct fastgru_call *const calls[2])
{
    struct job_of_two two;
    double nanoseconds = 0;
    memset(&two, 0, sizeof two);
    two.job.threads = 2;
    for (int i = 0; i < 2; ++i) {
        struct job *each = &two.each[i];
        if (!layers[i]->kernels->full_tile || layers[i]->units >= FEW_UNITS || calls[i]->batch >= MANY_ROWS)
            return 0;                /* each is shared by itself                           */
        each->layer = layers[i];
        each->call = calls[i];
        each->step_nanoseconds = step_nanoseconds(layers[i], calls[i]->batch);
        nanoseconds += each->step_nanoseconds * (double)calls[i]->timesteps;
    }
    two.job.call = calls[0];
    fastgru_plan_two(&two);
    return run_with_team(&two.job, nanoseconds);
}
