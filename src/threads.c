/* threads.c - how many threads a call may have, by the program and by what limits it. */

#define _GNU_SOURCE                  /* usleep                                             */

#include "team.h"

#if FASTGRU_HELPERS

#include <stdatomic.h>
#include <unistd.h>

static _Atomic int usual = 1, limit = FASTGRU_THREADS;
static _Atomic unsigned stall, stall_every;

static int within(int threads)
{
    return threads == FASTGRU_AUTO ? threads : threads < 1 ? 1 : threads < FASTGRU_THREADS ? threads : FASTGRU_THREADS;
}

int fastgru_threads_of(int asked)
{
    const int threads = asked ? asked : atomic_load_explicit(&usual, memory_order_relaxed);
    const int most = atomic_load_explicit(&limit, memory_order_relaxed);
    return threads == FASTGRU_AUTO && most > 1 ? threads : threads < 1 || most < threads ? most : threads;
}

void fastgru_set_threads(int threads)
{
    atomic_store(&usual, within(threads));
}

int fastgru_get_threads(void)
{
    return fastgru_threads_of(0);
}

VISIBLE void fastgru_limit_threads(int threads)
{
    atomic_store(&limit, threads < 1 ? 1 : within(threads));
}

VISIBLE int fastgru_threads_limit(void)
{
    return atomic_load(&limit);
}

void fastgru_stall_threads(unsigned microseconds, unsigned every)
{
    atomic_store(&stall, microseconds);
    atomic_store(&stall_every, every);
}

int fastgru_stalls(void)
{
    return atomic_load_explicit(&stall_every, memory_order_relaxed) > 0;
}

void fastgru_stall(uint64_t piece)
{
    const unsigned every = atomic_load_explicit(&stall_every, memory_order_relaxed);
    if (every && piece % every == 0)
        usleep(atomic_load_explicit(&stall, memory_order_relaxed));
}

#else                                /* no helpers                                         */

int fastgru_threads_of(int asked) { (void)asked; return 1; }
void fastgru_set_threads(int threads) { (void)threads; }
int fastgru_get_threads(void) { return 1; }
VISIBLE void fastgru_limit_threads(int threads) { (void)threads; }
VISIBLE int fastgru_threads_limit(void) { return 1; }
void fastgru_stall_threads(unsigned microseconds, unsigned every) { (void)microseconds, (void)every; }

struct fastgru_team *fastgru_team_take(int threads, size_t bytes, double nanoseconds)
{
    (void)threads, (void)bytes, (void)nanoseconds;
    return NULL;
}

char *fastgru_team_memory(struct fastgru_team *t) { (void)t; return NULL; }
void fastgru_team_open(struct fastgru_team *t, const struct fastgru_phase *phase) { (void)t, (void)phase; }
int fastgru_team_run(struct fastgru_team *t) { (void)t; return 1; }
int fastgru_team_finished(struct fastgru_team *t, ptrdiff_t unit) { (void)t, (void)unit; return 0; }
void fastgru_team_give_back(struct fastgru_team *t) { (void)t; }
void fastgru_settle(void) { }

struct fastgru_thread_counts fastgru_count_threads(void)
{
    const struct fastgru_thread_counts none = {0, 0, 0, 0};
    return none;
}

#endif
