/* What one core of this machine can do at this moment.
 *
 *     cc -O2 -march=native roofline.c -o roofline
 *     ./roofline [bytes ...]
 *
 * Prints a line for the fused multiply-adds on float vectors and one for each number of bytes that is
 * read over and over: GFLOP/s or GB/s, the median of runs within MILLISECONDS. The first line has two
 * more numbers: lanes of a vector, and the clock in GHz, if a core starts two of them in a cycle. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined __AVX512F__
#define BYTES 64
#elif defined __AVX__
#define BYTES 32
#else
#define BYTES 16
#endif

enum { LANES = BYTES / 4, CHAINS = 12, MILLISECONDS = 4, MOST_RUNS = 1000 };

typedef float vector __attribute__((vector_size(BYTES)));

/* a statement for each of the CHAINS accumulators, which must stay in registers */
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define DECLARE(i) vector a##i = {i};
#define MULTIPLY_ADD(i) a##i = a##i * factor + term;
#define ADD(i) a##i += p[i];
#define SUM(i) + a##i

static volatile float sink; /* keeps the compiler from leaving the work out */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One run: so many turns of 2 * LANES * CHAINS operations. */
static double multiply_add(const vector *unused, size_t turns)
{
    const vector factor = (vector){0} + 0.999f, term = (vector){0} + 0.001f;
    (void)unused;
    EACH(DECLARE)
    const double start = seconds();
    for (size_t i = 0; i < turns; i++) {
        EACH(MULTIPLY_ADD)
        __asm__ volatile("" ::: "memory");
    }
    const double time = seconds() - start;
    sink = (EACH(SUM))[0];
    return time;
}

/* One run: reads so many blocks of CHAINS vectors, often enough for the clock's step not to count. */
static double read_over(const vector *memory, size_t blocks)
{
    const size_t turns = 1 + 1000 / blocks;
    EACH(DECLARE)
    const double start = seconds();
    for (size_t turn = 0; turn < turns; turn++) {
        const vector *p = memory;
        for (size_t block = 0; block < blocks; block++, p += CHAINS) {
            EACH(ADD)
        }
        __asm__ volatile("" ::: "memory");
    }
    const double time = seconds() - start;
    sink = (EACH(SUM))[0];
    return time / (double)turns;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of a run, of runs within MILLISECONDS; the first one warms the caches. */
static double median(double (*run)(const vector *, size_t), const vector *memory, size_t size)
{
    static double times[MOST_RUNS];
    int runs = 0;
    run(memory, size);
    const double start = seconds();
    do
        times[runs++] = run(memory, size);
    while (runs < MOST_RUNS && (runs < 3 || seconds() - start < 1e-3 * MILLISECONDS));
    qsort(times, (size_t)runs, sizeof *times, ascending);
    return times[runs / 2];
}

int main(int count, char **arguments)
{
    const size_t turns = 20000, block = CHAINS * BYTES;
    const double operations = 1e-9 * 2 * LANES * CHAINS * (double)turns;
    const double peak = operations / median(multiply_add, NULL, turns);
    printf("%.6g %d %.6g\n", peak, LANES, peak / (4 * LANES));
    for (int i = 1; i < count; i++) {
        const size_t blocks = strtoul(arguments[i], NULL, 10) / block + 1;
        vector *memory = aligned_alloc(BYTES, blocks * block);
        if (memory == NULL)
            return 1;
        memset(memory, 0, blocks * block);
        printf("%.6g\n", 1e-9 * (double)(blocks * block) / median(read_over, memory, blocks));
        free(memory);
    }
    return 0;
}
