/* c_face.c - any call of the engine's face, chosen by a fuzzer: libFuzzer under AddressSanitizer and
 * UndefinedBehaviorSanitizer.
 *
 * Every array has exactly the size that the face says. Of each call the gaps between rows must stay as they were, and
 * where bits do not depend on company, each row alone, cut in time, must have the same bits. A network of the layer
 * must have them too, with any number of threads. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastgru/network.h"
#include "fastgru/threads.h"

/* ---- choices ---------------------------------------------------------------------------- */

static const uint8_t *given;         /* bytes of the fuzzer that no choice has had         */
static size_t left;
static uint32_t state;               /* of the numbers in arrays                           */

/* A number below n; 0 when the bytes are used up. */
static ptrdiff_t choose(unsigned n)
{
    if (!left)
        return 0;
    --left;
    return *given++ % n;
}

static double number(void)
{
    state = state * 1664525 + 1013904223;
    return (double)(state >> 8) / (1 << 23) - 1;
}

#define REQUIRE(condition)                                                              \
    do {                                                                                \
        if (!(condition)) {                                                             \
            fprintf(stderr, "c_face.c:%d: it must be that %s\n", __LINE__, #condition); \
            abort();                                                                    \
        }                                                                               \
    } while (0)

/* ---- arrays ------------------------------------------------------------------------------ */

enum { ARRAYS = 64, GAP = 0xA5 };
static void *arrays[ARRAYS];
static int used;

static void *memory(size_t bytes)
{
    REQUIRE(used < ARRAYS);
    void *found = NULL;
    REQUIRE(posix_memalign(&found, 64, bytes ? bytes : 1) == 0);
    memset(found, GAP, bytes);
    return arrays[used++] = found;
}

static void *numbers(ptrdiff_t n, size_t itemsize)
{
    char *array = (char *)memory((size_t)n * itemsize);
    for (ptrdiff_t i = 0; i < n; ++i) {
        const double value = number();
        const float single = (float)value;
        memcpy(array + (size_t)i * itemsize, itemsize == 8 ? (const void *)&value : (const void *)&single, itemsize);
    }
    return array;
}

/* Strides of (batch, timesteps, width) in some order, with gaps or without; returns the elements that it takes. */
static ptrdiff_t strides(ptrdiff_t batch, ptrdiff_t timesteps, ptrdiff_t width, ptrdiff_t *of_batch, ptrdiff_t *of_time)
{
    const ptrdiff_t gap = choose(3) ? 0 : choose(5);
    if (choose(2)) {
        *of_batch = width + gap;
        *of_time = batch * (width + gap) + (choose(3) ? 0 : choose(7));
    } else {
        *of_time = width + gap;
        *of_batch = timesteps * (width + gap) + (choose(3) ? 0 : choose(7));
    }
    return (batch - 1) * *of_batch + (timesteps - 1) * *of_time + width;
}

/* True if two numbers have the same bits, or both are NaN. */
static int same(const char *a, const char *b, size_t itemsize)
{
    float single[2];
    double pair[2];
    if (itemsize == 8) {
        memcpy(pair, a, 8), memcpy(pair + 1, b, 8);
        return (isnan(pair[0]) && isnan(pair[1])) || !memcmp(a, b, 8);
    }
    memcpy(single, a, 4), memcpy(single + 1, b, 4);
    return (isnan(single[0]) && isnan(single[1])) || !memcmp(a, b, 4);
}

static int all_same(const char *a, const char *b, ptrdiff_t n, size_t itemsize)
{
    for (ptrdiff_t i = 0; i < n; ++i)
        if (!same(a + (size_t)i * itemsize, b + (size_t)i * itemsize, itemsize))
            return 0;
    return 1;
}

/* ---- a call ------------------------------------------------------------------------------ */

static struct fastgru_layer layer;
static struct fastgru_call call;
static const ptrdiff_t *steps;       /* (batch) lengths as they were given; or NULL        */
static size_t itemsize;

static void make_layer(void)
{
    const struct fastgru_kernels *kernels = fastgru_kernels_at(0);
    for (ptrdiff_t i = choose(3); i > 0 && fastgru_kernels_at((int)i); --i)
        kernels = fastgru_kernels_at((int)i);
    const struct fastgru_format *formats[5] = {
        &kernels->f32, &kernels->f64, &kernels->f16, &kernels->i8, &kernels->i8_dot};
    memset(&layer, 0, sizeof layer);
    layer.kernels = formats[choose(5)];
    if (!layer.kernels->step || (layer.kernels == &kernels->i8_dot && !fastgru_has_dot(kernels)))
        layer.kernels = &kernels->f32;
    itemsize = layer.kernels->itemsize;
    layer.features = 1 + choose(choose(2) ? 7 : 70);
    layer.units = 1 + choose(choose(2) ? 9 : 140);
    layer.reset_after = (int)choose(2);
    layer.activation = choose(2) ? FASTGRU_tanh : (int)choose(FASTGRU_ACTIVATION_COUNT);
    layer.recurrent_activation = choose(2) ? FASTGRU_sigmoid : (int)choose(FASTGRU_ACTIVATION_COUNT);
    layer.alpha = 0.25 * (double)choose(8), layer.recurrent_alpha = 0.25 * (double)choose(8);
    state = (uint32_t)choose(256) * 2654435761u;
    if (layer.kernels->quantized && choose(2)) {
        float *scales = (float *)memory((size_t)(6 * layer.units) * sizeof(float));
        for (ptrdiff_t i = 0; i < 6 * layer.units; ++i)
            scales[i] = 0.008f + 0.004f * (float)number();
        layer.scales = scales;
    }
    void *kernel = numbers(layer.features * 3 * layer.units, itemsize);
    void *recurrent = numbers(layer.units * 3 * layer.units, itemsize);
    void *bias = choose(4) ? numbers((layer.reset_after ? 6 : 3) * layer.units, itemsize) : NULL;
    fastgru_pack(&layer, kernel, recurrent, bias, memory(fastgru_packed_size(&layer)));
}

static void make_call(void)
{
    memset(&call, 0, sizeof call);
    steps = NULL;
    call.batch = 1 + choose(choose(3) ? 6 : 40);
    call.timesteps = 1 + choose(choose(3) ? 6 : 40);
    const ptrdiff_t x = strides(
        call.batch, call.timesteps, layer.features, &call.x_batch_stride, &call.x_time_stride);
    call.x = numbers(x, itemsize);
    if (choose(4) == 0)
        call.x_batch_stride = 0;     /* the same sequence for all rows                     */
    if (choose(3))
        call.state = numbers(call.batch * layer.units, itemsize);
    if (choose(2))
        call.initial_state = call.state && choose(2) ? call.state : numbers(call.batch * layer.units, itemsize);
    call.go_backwards = (int)choose(2);
    call.zero_output_for_mask = (int)choose(2);
    call.walk = (unsigned)choose(256);
    const ptrdiff_t masked = choose(4);
    if (masked == 1) {
        const ptrdiff_t bytes = strides(
            call.batch, call.timesteps, 1, &call.mask_batch_stride, &call.mask_time_stride);
        unsigned char *mask = (unsigned char *)memory((size_t)bytes);
        const unsigned often = 1 + (unsigned)choose(5);
        for (ptrdiff_t i = 0; i < bytes; ++i)
            mask[i] = (number() + 1) * 3 < often;
        call.mask = mask;
    } else if (masked == 2) {
        ptrdiff_t *lengths = (ptrdiff_t *)memory((size_t)call.batch * sizeof *lengths);
        for (ptrdiff_t i = 0; i < call.batch; ++i)
            lengths[i] = choose((unsigned)call.timesteps + 1);
        const ptrdiff_t right = lengths[0];
        ptrdiff_t *ordered = (ptrdiff_t *)memory((size_t)(5 * call.batch) * sizeof *ordered);
        lengths[0] = choose(2) ? -1 - choose(9) : call.timesteps + 1 + choose(9);
        REQUIRE(!fastgru_set_lengths(&call, lengths, ordered) && !call.lengths);
        lengths[0] = right;
        REQUIRE(fastgru_set_lengths(&call, lengths, ordered));
        steps = lengths;
    }
    if (call.mask && choose(2)) {
        call.seen = (unsigned char *)memory((size_t)call.batch);
        for (ptrdiff_t i = 0; i < call.batch; ++i)
            call.seen[i] = (unsigned char)choose(2);
    }
    call.scratch = memory((steps ? fastgru_ragged_scratch_size : fastgru_scratch_size)(
        &layer, call.batch + (choose(2) ? 0 : choose(4)), call.timesteps + (choose(2) ? 0 : choose(4))));
}

/* True if the row has a step at a time of x. */
static unsigned char steps_at(ptrdiff_t row, ptrdiff_t time)
{
    if (steps)
        return time < steps[row];
    return !call.mask || call.mask[row * call.mask_batch_stride + time * call.mask_time_stride];
}

/* A row alone, in two calls: its outputs, (timesteps, units), and its last state. */
static void run_alone(ptrdiff_t row, const char *initial, unsigned char seen, char *out, char *last)
{
    const ptrdiff_t cut = call.timesteps > 1 ? 1 + choose((unsigned)call.timesteps - 1) : 1;
    struct fastgru_call one = call;
    unsigned char mask[64];
    one.batch = 1, one.lengths = NULL, one.rows = NULL, one.mask = NULL, one.walk = 0;
    one.seen = call.seen || call.mask || steps ? &seen : NULL;
    one.initial_state = initial;
    one.state = last;
    one.out_batch_stride = 0, one.out_time_stride = layer.units;
    one.mask_batch_stride = 0, one.mask_time_stride = 1;
    for (ptrdiff_t done = 0; done < call.timesteps; done += one.timesteps) {
        one.timesteps = done ? call.timesteps - done : cut;
        const ptrdiff_t first = call.go_backwards ? call.timesteps - done - one.timesteps : done;
        for (ptrdiff_t i = 0; i < one.timesteps; ++i)
            mask[i] = steps_at(row, first + i);
        if (call.mask || steps)
            one.mask = mask;
        one.x = (const char *)call.x + (size_t)(row * call.x_batch_stride + first * call.x_time_stride) * itemsize;
        one.out = out + (size_t)(done * layer.units) * itemsize;
        one.scratch = memory(fastgru_scratch_size(&layer, 1, one.timesteps));
        fastgru_sequence(&layer, &one);
        one.initial_state = last;
    }
}

/* ---- the same as a network ----------------------------------------------------------------- */

/* Run the call as a network of one node: the last state, (batch, units), and outputs, (batch, timesteps, units). */
static void run_network(const void *initial, int threads, char *out, char *last)
{
    struct fastgru_node node;
    struct fastgru_value values[2];
    struct fastgru_network network;
    struct fastgru_network_call run;
    const void *const initials[1] = {initial};
    void *const lasts[1] = {last};
    memset(&node, 0, sizeof node), memset(values, 0, sizeof values);
    memset(&network, 0, sizeof network), memset(&run, 0, sizeof run);
    node.kind = FASTGRU_GRU, node.output = 1, node.layer = &layer;
    node.go_backwards = call.go_backwards, node.zero_output_for_mask = call.zero_output_for_mask;
    values[0].width = layer.features, values[1].width = layer.units;
    values[0].itemsize = values[1].itemsize = itemsize;
    network.nodes = &node, network.values = values, network.node_count = 1, network.value_count = 2;
    network.state_count = 1, network.output_count = 1, network.outputs[0] = 1;
    REQUIRE(fastgru_connect(&network) == 0);
    run.batch = call.batch, run.timesteps = call.timesteps;
    run.x = call.x, run.x_batch_stride = call.x_batch_stride, run.x_time_stride = call.x_time_stride;
    run.initial_states = initial ? initials : NULL;
    run.states = lasts;
    run.out[0] = out, run.out_batch_stride[0] = call.timesteps * layer.units, run.out_time_stride[0] = layer.units;
    run.mask = call.mask, run.mask_batch_stride = call.mask_batch_stride, run.mask_time_stride = call.mask_time_stride;
    run.lengths = steps;
    run.threads = threads;
    run.memory = memory(fastgru_workspace(&network, &run));
    fastgru_workspace(&network, &run);
    fastgru_run(&network, &run);
    fastgru_settle();
}

/* ---- what is fuzzed ------------------------------------------------------------------------ */

static void check(void)
{
    const ptrdiff_t units = layer.units, batch = call.batch, timesteps = call.timesteps;
    const size_t row_bytes = (size_t)units * itemsize, state_bytes = (size_t)batch * row_bytes;
    const int fixed = layer.kernels->full_tile != 0;
    ptrdiff_t elements = 0;
    char *initial = NULL, *before = NULL;
    unsigned char *seen = NULL;
    if (call.initial_state)
        initial = (char *)memcpy(memory(state_bytes), call.initial_state, state_bytes);
    if (call.seen)
        seen = (unsigned char *)memcpy(memory((size_t)batch), call.seen, (size_t)batch);
    if (choose(5)) {
        elements = strides(batch, timesteps, units, &call.out_batch_stride, &call.out_time_stride);
        if (!choose(4)) {
            call.out_time_stride = 0, call.out_batch_stride = units + choose(4);
            elements = (batch - 1) * call.out_batch_stride + units;
        }
        call.out = memory((size_t)elements * itemsize);
        before = (char *)memory((size_t)elements * itemsize);
    }
    fastgru_sequence(&layer, &call);
    char *row_out = (char *)memory((size_t)timesteps * row_bytes), *last = (char *)memory(row_bytes);
    for (ptrdiff_t row = 0; row < batch && row < 6; ++row) {
        if (call.out)
            for (ptrdiff_t t = 0; t < timesteps; ++t) {
                const size_t at = (size_t)(row * call.out_batch_stride + t * call.out_time_stride) * itemsize;
                memcpy(before + at, (char *)call.out + at, row_bytes);
            }
        if (!fixed)
            continue;
        const int used_before = used;
        run_alone(row, initial ? initial + (size_t)row * row_bytes : NULL, seen ? seen[row] : 0, row_out, last);
        if (call.state)
            REQUIRE(all_same((char *)call.state + (size_t)row * row_bytes, last, units, itemsize));
        if (call.out)
            for (ptrdiff_t t = call.out_time_stride ? 0 : timesteps - 1; t < timesteps; ++t)
                REQUIRE(all_same(
                    (char *)call.out + (size_t)(row * call.out_batch_stride + t * call.out_time_stride) * itemsize,
                    row_out + (size_t)t * row_bytes, units, itemsize));
        while (used > used_before)
            free(arrays[--used]);
    }
    if (call.out && batch <= 6)      /* what no row has is as it was                       */
        REQUIRE(!memcmp(before, call.out, (size_t)elements * itemsize));
    if (!seen && fixed && choose(3) == 0) {
        char *outs[2], *lasts[2];
        for (int i = 0; i < 2; ++i) {
            outs[i] = (char *)memory((size_t)timesteps * state_bytes), lasts[i] = (char *)memory(state_bytes);
            run_network(initial, i ? 2 + (int)choose(4) : 1, outs[i], lasts[i]);
        }
        REQUIRE(all_same(outs[0], outs[1], batch * timesteps * units, itemsize));
        REQUIRE(all_same(lasts[0], lasts[1], batch * units, itemsize));
        if (call.state)
            REQUIRE(all_same((const char *)call.state, lasts[0], batch * units, itemsize));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    given = data, left = size;
    make_layer();
    make_call();
    check();
    while (used)
        free(arrays[--used]);
    return 0;
}
