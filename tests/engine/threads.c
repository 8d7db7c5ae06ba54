/* threads.c - calls with helpers against the same calls alone: the same bits, whatever helpers do.
 *
 *     threads SEED CALLS          random layers and calls; prints the first difference
 *     threads SEED CALLS small    the same of small ones
 *     threads SEED CALLS time     a line for each call: microseconds alone and with helpers */

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fastgru/network.h"
#include "fastgru/threads.h"

static unsigned long long state;

static unsigned below(unsigned n)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(state >> 33) % n;
}

static void *filled(size_t n, size_t itemsize, double scale)
{
    char *array = (char *)malloc(n * itemsize + 64);
    for (size_t i = 0; i < n; ++i) {
        const double value = scale * ((double)below(2001) / 1000 - 1);
        const float single = (float)value;
        memcpy(array + i * itemsize, itemsize == 8 ? (const void *)&value : (const void *)&single, itemsize);
    }
    return array;
}

static double microseconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

struct outcome {
    char *out;
    char *last;
    size_t out_bytes, last_bytes;
    double time;
};

static struct outcome call(
    const struct fastgru_network *network, struct fastgru_network_call run, ptrdiff_t units, size_t itemsize, int steps,
    int time_major, int with_states, int threads, int times)
{
    struct outcome outcome;
    void *last;
    void *lasts[1];
    outcome.last_bytes = (size_t)(run.batch * units) * itemsize;
    outcome.out_bytes = outcome.last_bytes * (size_t)(steps ? run.timesteps : 1);
    outcome.out = (char *)malloc(outcome.out_bytes);
    last = outcome.last = (char *)calloc(1, outcome.last_bytes);
    lasts[0] = last;
    run.states = with_states ? lasts : NULL;
    run.out[0] = outcome.out;
    run.out_batch_stride[0] = !steps || time_major ? units : units * run.timesteps;
    run.out_time_stride[0] = !steps ? 0 : time_major ? units * run.batch : units;
    run.threads = threads;
    run.memory = NULL;
    run.memory = aligned_alloc(64, (fastgru_workspace(network, &run) + 63) / 64 * 64);
    fastgru_workspace(network, &run);
    outcome.time = 1e18;
    for (int i = 0; i < times; ++i) {
        const double since = microseconds();
        fastgru_run(network, &run);
        const double time = microseconds() - since;
        outcome.time = time < outcome.time ? time : outcome.time;
    }
    free(run.memory);
    return outcome;
}

static int compare(unsigned long long seed, int small, int timed)
{
    const unsigned counts[4] = {2, 3, 4, 8};
    const struct fastgru_kernels *kernels = fastgru_kernels_at(0);
    const struct fastgru_format *formats[5] = {&kernels->f32, &kernels->f64, &kernels->f16, &kernels->i8, &kernels->i8_dot};
    struct fastgru_layer layer;
    struct fastgru_node node;
    struct fastgru_value values[2];
    struct fastgru_network network;
    struct fastgru_network_call run;
    struct outcome alone, helped;
    state = seed * 2654435761ULL + 12345;
    for (unsigned i = 0, sets = below(3); i < sets && fastgru_kernels_at((int)i); ++i)
        kernels = fastgru_kernels_at((int)i);
    memset(&layer, 0, sizeof layer);
    memset(&node, 0, sizeof node);
    memset(values, 0, sizeof values);
    memset(&network, 0, sizeof network);
    memset(&run, 0, sizeof run);
    layer.kernels = formats[below(5)];
    if (!layer.kernels->step || (layer.kernels == &kernels->i8_dot && !fastgru_has_dot(kernels)))
        layer.kernels = &kernels->f32;
    run.batch = below(2) ? 1 + below(small ? 3 : 15) : 16 + below(small ? 20 : 100);
    run.timesteps = 1 + below(small ? 10 : below(4) ? 30 : 150);
    layer.features = 1 + below(small ? 20 : 200);
    layer.units = run.batch < 16 && below(4) ? 128 + below(small ? 20 : 200) : 1 + below(small ? 20 : 200);
    layer.reset_after = (int)below(2);
    layer.activation = FASTGRU_tanh;
    layer.recurrent_activation = below(2) ? FASTGRU_sigmoid : FASTGRU_hard_sigmoid;
    const size_t itemsize = layer.kernels->itemsize;
    const ptrdiff_t features = layer.features, units = layer.units, batch = run.batch, timesteps = run.timesteps;
    const int steps = (int)below(3) > 0, time_major = (int)below(2), masked = (int)below(4), with_states = below(8) > 0;
    void *kernel = filled((size_t)(features * 3 * units), itemsize, 0.2);
    void *recurrent = filled((size_t)(units * 3 * units), itemsize, 0.2);
    void *bias = filled((size_t)(6 * units), itemsize, 0.2);
    void *packed = aligned_alloc(64, (fastgru_packed_size(&layer) + 63) / 64 * 64);
    void *x = filled((size_t)(batch * timesteps * features), itemsize, 1);
    void *initial = filled((size_t)(batch * units), itemsize, 1);
    unsigned char *mask = (unsigned char *)malloc((size_t)(batch * timesteps));
    ptrdiff_t *lengths = (ptrdiff_t *)malloc((size_t)batch * sizeof(ptrdiff_t));
    const int often = (int)below(3);
    for (ptrdiff_t i = 0; i < batch * timesteps; ++i)
        mask[i] = often ? below(3) != 0 : below(20) == 0;
    for (ptrdiff_t i = 0; i < batch; ++i)
        lengths[i] = often ? timesteps - (ptrdiff_t)below((unsigned)(timesteps + 3) / 4) : below((unsigned)timesteps + 1);
    fastgru_pack(&layer, kernel, recurrent, bias, packed);
    node.kind = FASTGRU_GRU;
    node.output = 1;
    node.layer = &layer;
    node.go_backwards = (int)below(2);
    node.zero_output_for_mask = (int)below(2);
    values[0].width = features;
    values[1].width = units;
    values[0].itemsize = values[1].itemsize = itemsize;
    values[1].last = !steps;
    network.nodes = &node;
    network.values = values;
    network.node_count = 1;
    network.value_count = 2;
    network.state_count = 1;
    network.output_count = 1;
    network.outputs[0] = 1;
    fastgru_connect(&network);
    const void *const initials[1] = {initial};
    run.x = x;
    run.x_batch_stride = time_major ? features : features * timesteps;
    run.x_time_stride = time_major ? features * batch : features;
    run.initial_states = below(2) ? initials : NULL;
    if (masked == 1) {
        run.mask = mask;
        run.mask_batch_stride = timesteps;
        run.mask_time_stride = 1;
    } else if (masked == 2) {
        run.lengths = lengths;
    }
    const int threads = (int)counts[below(4)], times = timed ? 5 : 1;
    if (!timed)
        fastgru_stall_threads(below(2) ? 200 : 1000, below(4) ? 1 + below(60) : 1000000);
    alone = call(&network, run, units, itemsize, steps, time_major, with_states, 1, times);
    helped = call(&network, run, units, itemsize, steps, time_major, with_states, timed ? 2 : threads, timed ? 5 : 3);
    const int differs = memcmp(alone.out, helped.out, alone.out_bytes) || memcmp(alone.last, helped.last, alone.last_bytes);
    if (differs || timed)
        printf("seed %llu: %s %s, %td rows of %td steps, %td to %td, reset %s, %s, %d threads: %.0f and %.0f us%s\n",
               seed, kernels->isa,
               layer.kernels == &kernels->f32 ? "f32" : layer.kernels == &kernels->f64 ? "f64"
                   : layer.kernels == &kernels->f16 ? "f16" : layer.kernels == &kernels->i8 ? "i8" : "i8_dot",
               batch, timesteps, features, units, layer.reset_after ? "after" : "before",
               run.mask ? "mask" : run.lengths ? "lengths" : "all", threads, alone.time, helped.time,
               differs ? ": other bits" : "");
    fastgru_settle();
    free(alone.out), free(alone.last), free(helped.out), free(helped.last);
    free(kernel), free(recurrent), free(bias), free(packed), free(x), free(initial), free(mask), free(lengths);
    return differs;
}

int main(int count, char **arguments)
{
    const unsigned long long seed = count > 1 ? strtoull(arguments[1], NULL, 10) : 0;
    const unsigned long long calls = count > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    int differs = 0;
    for (unsigned long long i = 0; i < calls; ++i)
        differs |= compare(seed + i, count > 3 && !strcmp(arguments[3], "small"), count > 3 && !strcmp(arguments[3], "time"));
    const struct fastgru_thread_counts counts = fastgru_count_threads();
    printf("%llu calls with helpers, %llu alone, %llu units helped, %llu lost\n",
           counts.calls, counts.alone, counts.helped, counts.lost);
    return differs;
}
