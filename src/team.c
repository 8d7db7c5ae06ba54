/* team.c - the protocol of several threads on one call; team.h says what it is for.
 *
 * All that threads share of a phase lies in a set: its memory, and a word for each thread and each of two phases, the one
 * that is running and the one after it.
 *
 *     claims[phase % 2][thread]   {phase, first, end}   units of this thread's share that nobody has claimed
 *     left[phase % 2]             {phase, units}        that are not done
 *
 *     open(p)   leader    phases[p % 2] := what to do;  left[p % 2] := {p, units};  claims[p % 2][...] := shares
 *     claim(p)  any       compare-and-swap: half of what is left of its own share, else one unit of another's, from the
 *                         other end; fails if the word is of another phase. What to do is read after it
 *     done(p)   any       left[p % 2] -= its units, once it finds none to claim
 *     p begins  for a thread that sees left[(p - 1) % 2] at {p - 1, 0}, or at a later phase
 *
 *     leader of p            { open(p + 1);  claim and do until there is none;  done;
 *                              wait until left is {p, 0} -> p + 1
 *                              waited too long           -> lose }
 *     helper                 { p begins -> claim and do until there is none;  done;  p + 1
 *                              `current` is another set  -> the phases there
 *                              waited too long, or it is on the leader's CPU -> sleep }
 *
 *     lose    close claims[(p + 1) % 2];  if left is {p, 0} by now, put them back: nothing was lost. Otherwise a helper
 *             has claimed units of p that are not done, and nobody has begun p + 1, nor will. The set is left as it is
 *             until it says {p, 0}: then no thread reads or writes its memory. The leader moves to a set that nobody
 *             has, and opens the phases there, by new numbers.
 *
 * Numbers of phases are never used again, so that a word which a thread read long ago no longer swaps. A team works in a
 * set only while there is another one to move to; else the leader works alone. */

#define _GNU_SOURCE                  /* sched_getcpu, pthread_setname_np                   */

#include "team.h"

#if FASTGRU_HELPERS

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    SETS = 3,                        /* of a team of two, two                              */
    SPINS = 32,                      /* between looks at the clock                         */
    STREAK = 3                       /* calls one after the other that wake helpers, each too short to */
};

/* In nanoseconds, and such that a call with helpers is rarely slower than alone: waking one takes the leader some time. */
static const double LEAST = 50e3;           /* of a call, if helpers are awake              */
static const double LEAST_ASLEEP = 300e3;   /* of a call, or of a phase, that wakes them    */
static const double AWAKE = 50e3;           /* that a helper spins between calls            */
static const double AWAKE_IN_CALL = 300e3;  /* and in one, the last of them yielding        */
static const double YIELD = 30e3;
static const double ON_ONE_CPU = 2e3;       /* with the leader                              */
static const double PAUSE = 1e6, LONGEST_PAUSE = 64e6;

struct word {
    _Alignas(64) _Atomic uint64_t value;
};

struct set {
    struct word claims[2][FASTGRU_THREADS];
    struct word left[2];
    struct fastgru_phase phases[2];  /* set before the claims are, read after one          */
    _Atomic unsigned char finished[2][FASTGRU_FLAGS];  /* 1: a unit that is done            */
    _Atomic uint64_t lost;           /* the phase in which a helper was; 0: none           */
    char *memory;                    /* the leader's                                       */
    size_t bytes;
};

struct helper {
    _Alignas(64) _Atomic int asleep;
    _Atomic uint64_t done;           /* units                                              */
    sem_t wake;
    pthread_t id;
    cpu_set_t cpus;                  /* that it may run on, while `moved`                  */
    int moved;
    int thread;
    uint64_t last;                   /* phase that it has been through                     */
};

struct fastgru_team {
    struct set *set;
    int threads;
    int with_helpers[2];             /* of the phases: 0 if the leader runs it alone       */
    uint64_t first, next;            /* phase that is to be run, and to be opened          */
    uint64_t units, helped;          /* of all phases, and what helpers had done before    */
    int lost;                        /* helpers                                            */
    const struct set *lost_set;      /* the last one was in                                */
};

static struct set sets[SETS];
static struct helper helpers[FASTGRU_THREADS];
static struct word current;          /* number of the set that the leader works in         */
static _Atomic int members;          /* threads that have shares                           */
static _Atomic int leader_cpu, taken;
static _Atomic unsigned long long calls, alone, lost;

/* of the leader */
static struct fastgru_team team;
static int helper_count;             /* threads that there are, with the leader            */
static uint64_t last_phase;
static double pause_of, resume_at, expected_end;
static int streak;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* ---- words ------------------------------------------------------------------------------------ */

static uint64_t claim_word(uint64_t phase, uint64_t first, uint64_t end)
{
    return phase << 24 | first << 12 | end;
}

/* 1 if all units of a phase are done. */
static int is_done(struct set *set, uint64_t phase)
{
    const uint64_t word = atomic_load_explicit(&set->left[phase & 1].value, memory_order_acquire);
    return word >> 12 > phase || (word >> 12 == phase && !(word & FASTGRU_UNITS));
}

/* 1 if no helper is lost in this set. */
static int is_free(struct set *set)
{
    const uint64_t phase = atomic_load_explicit(&set->lost, memory_order_acquire);
    return !phase || is_done(set, phase);
}

/* Claim units of the share of `owner`; returns 0 if there are none. A thread takes half of what is left of its own, from
 * one end in even phases and from the other in odd ones, so that it begins with weights that it read last. */
static int claim_from(struct set *set, uint64_t phase, int owner, int own, ptrdiff_t *first, ptrdiff_t *end)
{
    _Atomic uint64_t *word = &set->claims[phase & 1][owner].value;
    uint64_t old = atomic_load_explicit(word, memory_order_acquire);
    for (;;) {
        const uint64_t from = old >> 12 & FASTGRU_UNITS, to = old & FASTGRU_UNITS;
        const uint64_t units = own ? (to - from + 1) / 2 : 1;
        const int at_end = (int)(phase & 1) == own;
        if (old >> 24 != phase || from >= to)
            return 0;
        *first = (ptrdiff_t)(at_end ? to - units : from);
        *end = *first + (ptrdiff_t)units;
        if (atomic_compare_exchange_weak_explicit(
                word, &old, at_end ? claim_word(phase, from, to - units) : claim_word(phase, from + units, to),
                memory_order_acq_rel, memory_order_acquire))
            return 1;
    }
}

/* Claim and do units of a phase until there are none; returns how many. */
static ptrdiff_t work(struct set *set, uint64_t phase, int thread)
{
    const int threads = atomic_load_explicit(&members, memory_order_relaxed);
    ptrdiff_t done = 0, first, end;
    for (int i = 0; i < threads; ++i)
        while (claim_from(set, phase, (thread + i) % threads, !i, &first, &end)) {
            fastgru_stall(phase + (uint64_t)thread);
            set->phases[phase & 1].run(set->phases[phase & 1].what, thread, first, end);
            for (ptrdiff_t unit = first; set->phases[phase & 1].flags && unit < end; ++unit)
                atomic_store_explicit(&set->finished[phase & 1][unit], 1, memory_order_release);
            done += end - first;
        }
    if (done)
        atomic_fetch_sub_explicit(&set->left[phase & 1].value, (uint64_t)done, memory_order_acq_rel);
    return done;
}

/* ---- helpers ------------------------------------------------------------------------------------ */

/* The first phase after the last one that is open to a helper and has begun; 0: none. */
static uint64_t next_phase(const struct helper *me, struct set **set)
{
    uint64_t next = 0;
    *set = sets + atomic_load_explicit(&current.value, memory_order_acquire);
    for (int i = 0; i < 2; ++i) {
        const uint64_t word = atomic_load_explicit(&(*set)->claims[i][me->thread].value, memory_order_acquire);
        const uint64_t phase = word >> 24;
        if (phase > me->last && (!next || phase < next))
            next = phase;
    }
    return next && is_done(*set, next - 1) ? next : 0;
}

/* 1 if this helper and the leader take CPU time from each other. */
static int is_in_the_way(void)
{
    return sched_getcpu() == atomic_load_explicit(&leader_cpu, memory_order_relaxed);
}

/* Sleep until the leader wakes this helper, unless there is work and the helper is not in the way. */
static void sleep_helper(struct helper *me)
{
    struct set *set;
    atomic_store(&me->asleep, 1);
    if (next_phase(me, &set) && !is_in_the_way() && atomic_exchange(&me->asleep, 0))
        return;                      /* before it was woken                                */
    while (sem_wait(&me->wake) && errno == EINTR)
        ;
    if (me->moved)
        pthread_setaffinity_np(me->id, sizeof me->cpus, &me->cpus);
}

/* Wake a sleeping helper on a CPU other than the leader's, if it may have one: Linux prefers the CPU on which a thread
 * ran last, and where few CPUs share a cache it does not look for an idle one, so the helper would interrupt the leader. */
static void wake_helper(struct helper *me)
{
    const int cpu = sched_getcpu();
    me->moved = cpu >= 0 && !pthread_getaffinity_np(me->id, sizeof me->cpus, &me->cpus)
        && CPU_ISSET((size_t)cpu, &me->cpus);
    if (me->moved) {
        cpu_set_t others = me->cpus;
        CPU_CLR((size_t)cpu, &others);  /* without any other this fails, and changes nothing  */
        pthread_setaffinity_np(me->id, sizeof others, &others);
    }
    sem_post(&me->wake);
}

static void *help(void *argument)
{
    struct helper *me = (struct helper *)argument;
    for (;;) {
        struct set *set;
        uint64_t phase;
        double since = 0;
        for (unsigned spins = 0; !(phase = next_phase(me, &set)); ++spins) {
            RELAX;
            if (spins % SPINS)
                continue;
            const double time = now();
            const int called = atomic_load_explicit(&taken, memory_order_relaxed);
            since = since > 0 ? since : time;
            if (time - since > (called ? AWAKE_IN_CALL : AWAKE) || (time - since > ON_ONE_CPU && is_in_the_way())) {
                sleep_helper(me);
                since = 0;
            } else if (time - since > YIELD) {
                sched_yield();
            }
        }
        if (is_in_the_way() && !fastgru_stalls()) {
            sleep_helper(me);
            continue;
        }
        const uint64_t done = (uint64_t)work(set, phase, me->thread);
        atomic_store_explicit(
            &me->done, atomic_load_explicit(&me->done, memory_order_relaxed) + done, memory_order_relaxed);
        me->last = phase;
    }
    return NULL;
}

/* A child has no helpers, and whoever led a team in its parent is not there. */
static void forget_helpers(void)
{
    for (int i = 0; i < SETS; ++i)
        atomic_store(&sets[i].lost, 0);
    helper_count = 0;
    atomic_store(&taken, 0);
}

/* One more helper; returns 0 if there can be none. */
static int add_helper(void)
{
    static _Atomic int watched;
    sigset_t all, old;
    int failed;
    struct helper *me = helpers + (helper_count ? helper_count : 1);
    char name[16];
    if (!atomic_exchange(&watched, 1))
        pthread_atfork(NULL, NULL, forget_helpers);
    if (sem_init(&me->wake, 0, 0))
        return 0;
    me->thread = (int)(me - helpers);
    me->last = last_phase;
    atomic_store(&me->asleep, 0);
    snprintf(name, sizeof name, "fastgru-%d", me->thread);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);  /* signals are for the program's own threads */
    failed = pthread_create(&me->id, NULL, help, me);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed)
        return 0;
    pthread_setname_np(me->id, name);
    pthread_detach(me->id);
    helper_count = me->thread + 1;
    return 1;
}

/* Whether at least one helper of this many threads is awake, or was woken. */
static int gather(int threads, int wake)
{
    int there = 0;
    while (wake && helper_count < threads && add_helper())
        ;
    for (int i = 1; i < threads && i < helper_count; ++i) {
        int awake = !atomic_load_explicit(&helpers[i].asleep, memory_order_relaxed);
        if (!awake && wake) {
            if (atomic_exchange(&helpers[i].asleep, 0))
                wake_helper(helpers + i);
            awake = 1;
        }
        there |= awake;
    }
    return there;
}

static uint64_t helped_by(int threads)
{
    uint64_t sum = 0;
    for (int i = 1; i < threads && i < helper_count; ++i)
        sum += atomic_load_explicit(&helpers[i].done, memory_order_relaxed);
    return sum;
}

/* ---- the leader ----------------------------------------------------------------------------------- */

/* A set other than this one that nobody has and that is large enough; NULL: there is none. */
static struct set *another(const struct set *than, int threads, size_t bytes)
{
    for (int i = 0; i < SETS && (i < 2 || threads > 2); ++i) {
        struct set *set = sets + i;
        if (set == than || !is_free(set))
            continue;
        if (set->bytes < bytes) {
            set->bytes = 0;          /* first: the process may be forked in between        */
            free(set->memory);
            set->memory = (char *)aligned_alloc(64, (bytes + 63) / 64 * 64);
            if (!set->memory)
                continue;
            set->bytes = bytes;
        }
        return set;
    }
    return NULL;
}

/* Work in this set from now on. */
static void move(struct set *set)
{
    const uint64_t before = last_phase;
    team.set = set;
    team.first = team.next = before + 1;
    atomic_store_explicit(&set->lost, 0, memory_order_release);
    atomic_store_explicit(&set->left[before & 1].value, before << 12, memory_order_release);
    atomic_store_explicit(&current.value, (uint64_t)(set - sets), memory_order_release);
}

struct fastgru_team *fastgru_team_take(int threads, size_t bytes, double nanoseconds)
{
    const int eager = fastgru_stalls();
    struct set *set = NULL;
    double time;
    if (nanoseconds < LEAST && !eager)
        return NULL;
    if (atomic_exchange_explicit(&taken, 1, memory_order_acquire)) {
        atomic_fetch_add_explicit(&alone, 1, memory_order_relaxed);
        return NULL;
    }
    time = now();
    streak = time < expected_end + AWAKE ? streak + 1 : 0;
    expected_end = time + nanoseconds;
    if (time - resume_at > LONGEST_PAUSE)
        pause_of = 0;                /* what was in the way may be gone                    */
    if ((time >= resume_at || eager) && gather(threads, nanoseconds >= LEAST_ASLEEP || streak >= STREAK || eager)
            && (set = another(NULL, threads, bytes)) && another(set, threads, bytes)) {
        team.threads = threads;
        team.units = 0;
        team.lost = 0;
        team.helped = helped_by(threads);
        atomic_store_explicit(&members, threads, memory_order_relaxed);
        move(set);
        return &team;
    }
    atomic_fetch_add_explicit(&alone, 1, memory_order_relaxed);
    atomic_store_explicit(&taken, 0, memory_order_release);
    return NULL;
}

char *fastgru_team_memory(struct fastgru_team *t)
{
    return t->set->memory;
}

void fastgru_team_open(struct fastgru_team *t, const struct fastgru_phase *phase)
{
    struct set *set = t->set;
    const uint64_t number = t->next++, units = (uint64_t)phase->units, threads = (uint64_t)t->threads;
    const int with_helpers = another(set, t->threads, set->bytes) != NULL;
    last_phase = number;
    set->phases[number & 1] = *phase;
    t->with_helpers[number & 1] = with_helpers;
    t->units += units;
    atomic_store_explicit(&leader_cpu, sched_getcpu(), memory_order_relaxed);
    if (with_helpers && 4 * phase->patience > LEAST_ASLEEP)
        gather(t->threads, 1);
    atomic_store_explicit(&set->left[number & 1].value, number << 12 | units, memory_order_relaxed);
    for (uint64_t i = 0; phase->flags && i < units; ++i)
        atomic_store_explicit(&set->finished[number & 1][i], 0, memory_order_relaxed);
    for (uint64_t i = 0; with_helpers && i < threads; ++i)
        atomic_store_explicit(&set->claims[number & 1][i].value,
                              claim_word(number, i * units / threads, (i + 1) * units / threads),
                              memory_order_release);
}

/* Leave a helper that has not come to the end of a phase. Returns 0 if it has by now. */
static int lose(struct fastgru_team *t)
{
    struct set *set = t->set;
    const uint64_t ahead = t->first + 1;
    uint64_t old[FASTGRU_THREADS];
    const int open = t->next > ahead && t->with_helpers[ahead & 1];
    for (int i = 0; open && i < t->threads; ++i)
        old[i] = atomic_exchange_explicit(&set->claims[ahead & 1][i].value, claim_word(ahead, 0, 0),
                                          memory_order_acq_rel);
    if (is_done(set, t->first)) {
        for (int i = 0; open && i < t->threads; ++i)
            atomic_store_explicit(&set->claims[ahead & 1][i].value, old[i], memory_order_release);
        return 0;
    }
    atomic_store_explicit(&set->lost, t->first, memory_order_release);
    move(another(set, t->threads, set->bytes));
    t->lost_set = set;
    ++t->lost;
    atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
    return 1;
}

int fastgru_team_run(struct fastgru_team *t)
{
    struct set *set = t->set;
    const uint64_t phase = t->first;
    const struct fastgru_phase *what = set->phases + (phase & 1);
    if (!t->with_helpers[phase & 1]) {
        what->run(what->what, 0, 0, what->units);
        atomic_store_explicit(&set->left[phase & 1].value, phase << 12, memory_order_release);
    } else {
        double since = 0;
        work(set, phase, 0);
        for (unsigned spins = 1; !is_done(set, phase); ++spins) {
            RELAX;
            if (spins % SPINS)
                continue;
            const double time = now();
            since = since > 0 ? since : time;
            if (time - since > what->patience && lose(t))
                return 0;
        }
    }
    ++t->first;
    return 1;
}

int fastgru_team_finished(struct fastgru_team *t, ptrdiff_t unit)
{
    const uint64_t phase = atomic_load_explicit(&t->lost_set->lost, memory_order_relaxed);
    return atomic_load_explicit(&t->lost_set->finished[phase & 1][unit], memory_order_acquire);
}

/* A lost helper, or help that was less than a third of their share, is worth a pause, longer each time. */
void fastgru_team_give_back(struct fastgru_team *t)
{
    const uint64_t helped = helped_by(t->threads) - t->helped, threads = (uint64_t)t->threads;
    if (t->lost || 3 * helped * threads < t->units * (threads - 1)) {
        pause_of = pause_of < PAUSE ? PAUSE : pause_of * 2 < LONGEST_PAUSE ? pause_of * 2 : LONGEST_PAUSE;
        resume_at = now() + pause_of;
    } else {
        pause_of /= 2;
    }
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    atomic_store_explicit(&taken, 0, memory_order_release);
}

/* ---- the process ------------------------------------------------------------------------------------ */

void fastgru_settle(void)
{
    for (int i = 0; i < SETS; ++i)
        while (!is_free(sets + i))
            usleep(20);
}

struct fastgru_thread_counts fastgru_count_threads(void)
{
    struct fastgru_thread_counts counts = {atomic_load(&calls), atomic_load(&alone), 0, atomic_load(&lost)};
    for (int i = 1; i < FASTGRU_THREADS; ++i)
        counts.helped += atomic_load_explicit(&helpers[i].done, memory_order_relaxed);
    return counts;
}

#endif
