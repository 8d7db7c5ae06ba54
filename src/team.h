/* team.h - several threads that work on one call: who does which units of which phase.
 *
 * Work comes in phases, one after the other; a phase is a number of units, which any thread may do in any order. The
 * thread that calls is the leader; helpers come and go as they please. The leader never waits for a helper to wake, nor
 * longer than a phase's patience for one that has lost its CPU: it leaves the memory to the lost helper, and does the
 * phase again in other memory. team.c draws the protocol. */

#ifndef FASTGRU_TEAM_H
#define FASTGRU_TEAM_H

#include "compiler.h"
#include "fastgru/threads.h"

#if defined(__linux__) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L && !defined(__STDC_NO_ATOMICS__)
#define FASTGRU_HELPERS 1
#else
#define FASTGRU_HELPERS 0            /* a call has one thread                              */
#endif

struct fastgru_team;

struct fastgru_phase {
    ptrdiff_t units;                 /* 0 to FASTGRU_UNITS                                 */
    void (*run)(                     /* do some units: what they read and write lies in the team's memory,
                                        but for weights                                    */
        const void *what,
        int thread,                  /* 0: the leader                                      */
        ptrdiff_t first,
        ptrdiff_t end);
    const void *what;                /* in the team's memory                               */
    double patience;                 /* nanoseconds that the leader waits for the last units */
    int flags;                       /* 1: fastgru_team_finished is asked; at most FASTGRU_FLAGS units */
};

enum { FASTGRU_UNITS = 4095, FASTGRU_FLAGS = 256 };

/* The threads that a call may have which asks for this many, 0 for the process's number: 1 at least, or FASTGRU_AUTO. */
HIDDEN int fastgru_threads_of(int asked);

/* 1 if tests have threads stalled, and do so for one of their pieces of work. */
HIDDEN int fastgru_stalls(void);
HIDDEN void fastgru_stall(uint64_t piece);

/* Become the leader of up to `threads` threads. Returns NULL if the call is to run alone: another one leads, helpers
 * are not worth while, or there is no memory. */
HIDDEN struct fastgru_team *fastgru_team_take(
    int threads,                     /* 2 at least                                         */
    size_t bytes,                    /* of memory                                          */
    double nanoseconds);             /* that the call takes alone, about                   */

/* The memory that the next phases work in, aligned to 64. */
HIDDEN char *fastgru_team_memory(struct fastgru_team *team);

/* The next phase; at most one may be opened while the one before has not been run. */
HIDDEN void fastgru_team_open(struct fastgru_team *team, const struct fastgru_phase *phase);

/* Run the phase that has been opened first. Returns 1, or 0 if a helper was lost: then all open phases are to be
 * opened again, in other memory; what lies in the old memory may be read, but for what the lost phase writes. */
HIDDEN int fastgru_team_run(struct fastgru_team *team);

/* 1 if a unit of the phase in which a helper was lost was done by then: what it wrote to the old memory may be read. */
HIDDEN int fastgru_team_finished(struct fastgru_team *team, ptrdiff_t unit);

HIDDEN void fastgru_team_give_back(struct fastgru_team *team);

#endif
