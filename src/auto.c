/* auto.c - whether helpers pay for calls of some size: measured in the first ones, and remembered.
 *
 * Sizes are those of the layer, and powers of two of rows and of timesteps. The first calls of a size run alone, the
 * next ones with helpers, and from then on all run in the way that has been faster. */

#define _GNU_SOURCE                  /* clock_gettime                                      */

#include "sequence.h"
#include "team.h"

#if FASTGRU_HELPERS

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum {
    SIZES = 64,                      /* that are remembered: calls of others run alone     */
    TIMES = 8                        /* that each way is measured                          */
};

struct size {
    const struct fastgru_format *kernels;
    int reset_after;
    int measured[2];                 /* alone, with helpers                                */
    struct fastgru_choice choice;
};

static struct size sizes[SIZES];
static int count;
static _Atomic int held, watched;    /* 1 while a thread reads or writes them; and if forks are seen */

static int hold(void)
{
    return !atomic_exchange_explicit(&held, 1, memory_order_acquire);
}

static void let_go(void)
{
    atomic_store_explicit(&held, 0, memory_order_release);
}

static ptrdiff_t power_of_two(ptrdiff_t n)
{
    ptrdiff_t power = 1;
    while (power <= n / 2)
        power *= 2;
    return power;
}

/* The number of a call's size, or -1. */
static int find(const struct fastgru_layer *layer, const struct fastgru_call *call)
{
    const ptrdiff_t batch = power_of_two(call->batch), timesteps = power_of_two(call->timesteps);
    for (int i = 0; i < count; ++i) {
        const struct size *size = sizes + i;
        if (size->kernels == layer->kernels && size->reset_after == layer->reset_after
                && size->choice.features == layer->features && size->choice.units == layer->units
                && size->choice.batch == batch && size->choice.timesteps == timesteps)
            return i;
    }
    if (count == SIZES)
        return -1;
    memset(sizes + count, 0, sizeof *sizes);
    sizes[count].kernels = layer->kernels;
    sizes[count].reset_after = layer->reset_after;
    sizes[count].choice.features = layer->features;
    sizes[count].choice.units = layer->units;
    sizes[count].choice.batch = batch;
    sizes[count].choice.timesteps = timesteps;
    return count++;
}

/* Whether helpers were there and saved a twentieth of the time. */
static int pays(const struct fastgru_choice *choice)
{
    return choice->helped > 0 && choice->helped < 0.95 * choice->alone;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int fastgru_share_if_it_pays(const struct fastgru_layer *layer, struct fastgru_call *call)
{
    int number, measures, helped, done;
    double since;
    if (!atomic_load_explicit(&watched, memory_order_relaxed) && !atomic_exchange(&watched, 1))
        pthread_atfork(NULL, NULL, let_go);  /* the thread that holds them may not be in a child */
    if (!hold())
        return 0;
    number = find(layer, call);
    measures = number >= 0 && sizes[number].measured[1] < TIMES;
    helped = number >= 0 && (measures ? sizes[number].measured[0] == TIMES : pays(&sizes[number].choice));
    let_go();
    if (!measures)
        return helped && fastgru_share(layer, call, fastgru_threads_limit());
    since = now();
    done = !helped || fastgru_share(layer, call, fastgru_threads_limit());
    if (!helped)
        fastgru_sequence(layer, call);
    if (hold()) {
        const double each = (now() - since) / ((double)call->batch * (double)call->timesteps);
        double *best = helped ? &sizes[number].choice.helped : &sizes[number].choice.alone;
        sizes[number].measured[helped] += sizes[number].measured[helped] < TIMES;
        if (done && (*best <= 0 || each < *best))
            *best = each;
        let_go();
    }
    return done;
}

int fastgru_choice_at(int index, struct fastgru_choice *choice)
{
    int there;
    while (!hold())
        RELAX;
    there = index < count;
    if (there) {
        *choice = sizes[index].choice;
        choice->pays = pays(choice);
    }
    let_go();
    return there;
}

#else

int fastgru_share_if_it_pays(const struct fastgru_layer *layer, struct fastgru_call *call)
{
    (void)layer, (void)call;
    return 0;
}
int fastgru_choice_at(int index, struct fastgru_choice *choice) { (void)index, (void)choice; return 0; }

#endif
