/* What one core of this machine can do at best.
 *
 *     cc -O2 -march=native roofline.c -o roofline
 *     ./roofline [bytes ...]
 *
 * Prints GFLOP/s of fused multiply-adds on float vectors, then, a line for each number of bytes, GB/s
 * of reading that much memory over and over. Each is the best of many short runs. */

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

enum { LANES = BYTES / 4, CHAINS = 12, RUNS = 200 };

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

static double fma_gflops(void)
{
    const long turns = 20000;
    const vector factor = (vector){0} + 0.999f, term = (vector){0} + 0.001f;
    double best = 1e9;
    for (int run = 0; run < RUNS; run++) {
        EACH(DECLARE)
        const double start = seconds();
        for (long i = 0; i < turns; i++) {
            EACH(MULTIPLY_ADD)
            __asm__ volatile("" ::: "memory");
        }
        const double time = seconds() - start;
        sink = (EACH(SUM))[0];
        best = time < best ? time : best;
    }
    return 2e-9 * LANES * CHAINS * (double)turns / best;
}

/* Reads whole blocks of CHAINS vectors: memory must be large enough for the last one. */
static double read_gbytes(const vector *memory, size_t bytes)
{
    const size_t blocks = (bytes + CHAINS * BYTES - 1) / (CHAINS * BYTES);
    const long turns = 1 + (long)(100000 / blocks); /* a run takes much longer than the clock's step */
    double best = 1e9;
    for (int run = 0; run < RUNS; run++) {
        EACH(DECLARE)
        const double start = seconds();
        for (long i = 0; i < turns; i++) {
            const vector *p = memory;
            for (size_t block = 0; block < blocks; block++, p += CHAINS) {
                EACH(ADD)
            }
            __asm__ volatile("" ::: "memory");
        }
        const double time = seconds() - start;
        sink = (EACH(SUM))[0];
        best = time < best ? time : best;
    }
    return 1e-9 * (double)(turns * (long)(blocks * CHAINS * BYTES)) / best;
}

int main(int count, char **arguments)
{
    printf("%.6g\n", fma_gflops());
    for (int i = 1; i < count; i++) {
        const size_t bytes = strtoul(arguments[i], NULL, 10);
        const size_t rounded = (bytes / BYTES + CHAINS) * BYTES;
        vector *memory = aligned_alloc(BYTES, rounded);
        if (memory == NULL)
            return 1;
        memset(memory, 0, rounded);
        printf("%.6g\n", read_gbytes(memory, bytes));
        free(memory);
    }
    return 0;
}
