/* threads.h - how many threads a call may have.
 *
 * By default there is one, the caller. With more, a network's run gives parts of a GRU's work to helpers, which the
 * process shares: one call has them at a time, and others run alone. Results have the same bits for any number. */

#ifndef FASTGRU_THREADS_H
#define FASTGRU_THREADS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FASTGRU_THREADS = 64,            /* the most of a call, with the caller                */
    FASTGRU_AUTO = -1                /* as many as there may be, for calls of sizes at which that has been faster */
};

/* Threads of calls that do not ask for a number of their own, 1 to FASTGRU_THREADS or FASTGRU_AUTO: 1 at first. */
void fastgru_set_threads(int threads);
int fastgru_get_threads(void);

/* The most threads of any call, whatever it asks for: FASTGRU_THREADS at first. */
void fastgru_limit_threads(int threads);
int fastgru_threads_limit(void);

/* What FASTGRU_AUTO has found out of the index-th size of calls: 0 if there is none. */
struct fastgru_choice {
    ptrdiff_t features;
    ptrdiff_t units;
    ptrdiff_t batch;                 /* of the size, the least                             */
    ptrdiff_t timesteps;             /* of the size, the least                             */
    double alone;                    /* nanoseconds of a row's step; 0: not measured yet   */
    double helped;                   /* the same with helpers; 0: there were none          */
    int pays;                        /* 1 if calls of the size have helpers                */
};
int fastgru_choice_at(int index, struct fastgru_choice *choice);

/* Wait for helpers that still read weights or memory of calls that are over. To be called before weights are freed or
 * packed anew, if any call had more than one thread. */
void fastgru_settle(void);

/* For tests: let every thread sleep for this long before one of this many pieces of work, and let helpers help in every
 * call that asks, worth while or not; 0: as usual. */
void fastgru_stall_threads(unsigned microseconds, unsigned every);

/* What helpers have done: for tests and measurements. */
struct fastgru_thread_counts {
    unsigned long long calls;        /* that had helpers                                   */
    unsigned long long alone;        /* that asked for them and had none                   */
    unsigned long long helped;       /* units that helpers did                             */
    unsigned long long lost;         /* helpers that were not waited for                   */
};
struct fastgru_thread_counts fastgru_count_threads(void);

#ifdef __cplusplus
}
#endif

#endif
