/* Runs every kernel on arrays of exactly the size that it may touch; ends with status 0 if it touched
 * nothing else, and has printed the instruction sets, behind each a hash of what its packed kernels returned. With an
 * argument it runs only the best instruction set.
 *
 * An array ends where a page begins that cannot be accessed, which stops masked loads and stores too:
 * AddressSanitizer does not see those. It sees all others, one byte beyond either end. */

#define _GNU_SOURCE

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fastgru/fastgru.h"
#include "layout.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#endif

/* ---- arrays ----------------------------------------------------------------------------- */

enum { ARRAYS = 12, ARRAY_BYTES = 16 << 20 };

static struct array {
    char *memory;                    /* ARRAY_BYTES, and a page behind them                */
    char *data;                      /* the part of it that may be touched, to its end     */
    size_t bytes;
} arrays[ARRAYS];
static int used;                     /* of the arrays, by the run at hand                  */

static void make_arrays(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < ARRAYS; ++i) {
        char *memory = (char *)mmap(NULL, ARRAY_BYTES + page, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory + ARRAY_BYTES, page, PROT_NONE) != 0)
            exit(2);
        ASAN_POISON_MEMORY_REGION(memory, ARRAY_BYTES);
        arrays[i].data = arrays[i].memory = memory;
    }
}

/* The next array, of so many bytes. */
static void *array(size_t bytes, size_t alignment)
{
    if (used == ARRAYS || bytes > ARRAY_BYTES)
        exit(2);
    struct array *a = &arrays[used++];
    ASAN_POISON_MEMORY_REGION(a->data, a->bytes);
    a->data = a->memory + (ARRAY_BYTES - bytes) / alignment * alignment;
    a->bytes = bytes;
    ASAN_UNPOISON_MEMORY_REGION(a->data, a->bytes);
    return a->data;
}

/* ---- choices ---------------------------------------------------------------------------- */

static uint32_t seed;

/* Any number below n; the same ones in every run of the program. */
static int choose(int n)
{
    seed = seed * 1664525 + 1013904223;
    return (int)((seed >> 8) % (uint32_t)n);
}

static int usual_or_any(int usual)
{
    return choose(2) ? usual : choose(FASTGRU_ACTIVATION_COUNT);
}

/* Numbers of all kinds, to copy from. */
enum { NUMBERS = 4099 };
static float singles[NUMBERS];
static double doubles[NUMBERS];

static void make_numbers(void)
{
    const float rare[] = {0, -0.0f, 1e-40f, -1e-20f, 1e4f, -1e4f, 1e30f, -1e30f, INFINITY, -INFINITY, NAN};
    for (int i = 0; i < NUMBERS; ++i) {
        const float usual = (float)choose(2001) / 1000 - 1;
        doubles[i] = singles[i] = choose(50) ? usual : rare[choose(sizeof rare / sizeof *rare)];
    }
}

/* An array of them. */
static void *numbers(int elements, size_t itemsize)
{
    char *data = (char *)array((size_t)elements * itemsize, itemsize);
    const char *source = itemsize == sizeof(double) ? (const char *)doubles : (const char *)singles;
    for (int i = 0, n; i < elements; i += n) {
        const int first = choose(NUMBERS);
        n = elements - i < NUMBERS - first ? elements - i : NUMBERS - first;
        memcpy(data + (size_t)i * itemsize, source + (size_t)first * itemsize, (size_t)n * itemsize);
    }
    return data;
}

/* Ones and zeros; at a time all of them are one or the other. */
static unsigned char *flags(int elements)
{
    unsigned char *data = (unsigned char *)array((size_t)elements, 1);
    const int kind = choose(4);
    for (int i = 0; i < elements; ++i)
        data[i] = (unsigned char)(kind < 2 ? kind : choose(2));
    return data;
}

/* ---- results ------------------------------------------------------------------------------ */

static uint64_t hash;                /* of all numbers so far (Fowler, Noll, Vo); NaN are all the same */

static void note(const void *numbers, int elements, size_t itemsize)
{
    for (int i = 0; i < elements; ++i) {
        uint64_t bits = 0;
        memcpy(&bits, (const char *)numbers + (size_t)i * itemsize, itemsize);
        const int is_nan = itemsize == sizeof(double) ? isnan(((const double *)numbers)[i]) != 0
            : isnan(((const float *)numbers)[i]) != 0;
        hash = (hash ^ (is_nan ? 1 : bits)) * 0x100000001b3;
    }
}

/* ---- the packed kernels ------------------------------------------------------------------- */

/* A layer with weights, packed; where those came from may not be touched any more. */
static struct fastgru_layer make_layer(
    const struct fastgru_format *kernels, int features, int units, int reset_after)
{
    const size_t itemsize = kernels->itemsize;
    struct fastgru_layer layer;
    memset(&layer, 0, sizeof layer);
    layer.kernels = kernels;
    layer.features = features, layer.units = units, layer.reset_after = reset_after;
    layer.activation = usual_or_any(FASTGRU_tanh), layer.alpha = 0.5;
    layer.recurrent_activation = usual_or_any(FASTGRU_sigmoid), layer.recurrent_alpha = 0.5;
    void *memory = array(fastgru_packed_size(&layer), 64);
    const int weights = used;
    void *kernel = numbers(features * 3 * units, itemsize);
    void *recurrent_kernel = numbers(units * 3 * units, itemsize);
    void *bias = choose(4) ? numbers((reset_after ? 2 : 1) * 3 * units, itemsize) : NULL;
    fastgru_pack(&layer, kernel, recurrent_kernel, bias, memory);
    while (used > weights)
        ASAN_POISON_MEMORY_REGION(arrays[used - 1].data, arrays[used - 1].bytes), --used;
    return layer;
}

/* Strides of an array (rows, timesteps, width), or by chance (timesteps, rows, width). */
static void set_strides(int rows, int timesteps, int width, ptrdiff_t *batch_stride, ptrdiff_t *time_stride)
{
    const int rows_first = choose(2);
    *batch_stride = rows_first ? (ptrdiff_t)timesteps * width : width;
    *time_stride = rows_first ? width : (ptrdiff_t)rows * width;
}

static void set_output(struct fastgru_call *call, int rows, int timesteps, int units, size_t itemsize)
{
    const int kind = choose(3);
    if (kind == 0)
        return;
    call->out = numbers(rows * (kind == 1 ? 1 : timesteps) * units, itemsize);
    set_strides(rows, timesteps, units, &call->out_batch_stride, &call->out_time_stride);
    if (kind == 1)
        call->out_batch_stride = units, call->out_time_stride = 0;
}

/* Lengths of any order, and what says whether the longest come first. */
static void set_lengths(struct fastgru_call *call, int rows, int timesteps)
{
    ptrdiff_t *steps = array((size_t)rows * sizeof *steps, sizeof *steps);
    ptrdiff_t *memory = array((size_t)(5 * rows) * sizeof *memory, sizeof *memory);
    const int all = choose(3) == 0, wrong = choose(rows);
    for (int row = 0; row < rows; ++row)
        steps[row] = all ? timesteps : choose(timesteps + 1);
    const ptrdiff_t right = steps[wrong];
    steps[wrong] = choose(2) ? -1 : timesteps + 1;
    if (fastgru_set_lengths(call, steps, memory) || call->lengths)
        exit(5);
    steps[wrong] = right;
    if (!fastgru_set_lengths(call, steps, memory))
        exit(5);
    for (int i = 0; i < rows; ++i)
        if (call->lengths[i] != steps[call->rows[i]] || (i && (
                call->lengths[i] > call->lengths[i - 1]
                || (call->lengths[i] == call->lengths[i - 1] && call->rows[i] < call->rows[i - 1]))))
            exit(5);
}

static void run_packed(
    const struct fastgru_format *kernels, int rows, int timesteps, int features, int units, int reset_after)
{
    const size_t itemsize = kernels->itemsize;
    used = 0;
    const struct fastgru_layer layer = make_layer(kernels, features, units, reset_after);
    struct fastgru_call call;
    memset(&call, 0, sizeof call);
    call.batch = rows, call.timesteps = timesteps;
    call.x = numbers(rows * timesteps * features, itemsize);
    set_strides(rows, timesteps, features, &call.x_batch_stride, &call.x_time_stride);
    call.state = choose(4) ? numbers(rows * units, itemsize) : NULL;
    const int initial = choose(3);
    call.initial_state = initial == 0 ? NULL : initial == 1 ? call.state : numbers(rows * units, itemsize);
    set_output(&call, rows, timesteps, units, itemsize);
    const int some = choose(4);
    if (some == 0) {
        set_lengths(&call, rows, timesteps);
    } else if (some < 3) {
        call.mask = flags(rows * timesteps);
        set_strides(rows, timesteps, 1, &call.mask_batch_stride, &call.mask_time_stride);
    }
    call.go_backwards = choose(2);
    call.zero_output_for_mask = choose(2);
    call.walk = (unsigned)choose(2);
    call.scratch = array(
        (call.lengths ? fastgru_ragged_scratch_size : fastgru_scratch_size)(&layer, rows, timesteps), 64);
    fastgru_sequence(&layer, &call);
    if (call.state)
        note(call.state, rows * units, itemsize);
    if (call.out)
        note(call.out, call.out_time_stride ? rows * timesteps * units : rows * units, itemsize);
}

/* Scratch suffices for the call that its size was asked for, and for every smaller one. */
static void check_scratch(
    const struct fastgru_format *kernels, int features, int units, int reset_after)
{
    static const int timesteps[] = {1, 2, 3, 10, 100, 10000};
    struct fastgru_layer layer;
    memset(&layer, 0, sizeof layer);
    layer.kernels = kernels, layer.features = features, layer.units = units, layer.reset_after = reset_after;
    fastgru_lay_out(&layer, NULL);
    size_t largest[sizeof timesteps / sizeof *timesteps] = {0};
    size_t largest_ragged[sizeof timesteps / sizeof *timesteps] = {0};
    for (int rows = 0; rows <= 300; ++rows)
        for (size_t i = 0; i < sizeof timesteps / sizeof *timesteps; ++i) {
            const struct fastgru_blocks b = fastgru_blocking(&layer, rows, timesteps[i]);
            const size_t size = fastgru_scratch_size(&layer, rows, timesteps[i]);
            if (size < fastgru_lay_out_scratch(&layer, &b, NULL).bytes)
                exit(3);
            if (size < largest[i] || (i && size < largest[i - 1]))
                exit(4);
            largest[i] = size;
            const size_t ragged = fastgru_ragged_scratch_size(&layer, rows, timesteps[i]);
            if (ragged < largest_ragged[i] || (i && ragged < largest_ragged[i - 1]))
                exit(5);
            largest_ragged[i] = ragged;
        }
}

/* Every size of tile; then blocks of rows and chunks of timesteps, whole and not. */
static void run_all_packed(const struct fastgru_format *kernels)
{
    static const struct { int rows, timesteps, units; } large[] = {
        {1, 700, 66}, {5, 150, 66}, {40, 20, 66}, {41, 20, 66}, {128, 3, 17}, {129, 3, 17}, {300, 2, 9},
    };
    for (int reset_after = 0; reset_after <= 1; ++reset_after) {
        for (int units = 1; units <= 70; ++units)
            for (int rows = 1 + units % 5; rows <= 20; rows += 5) {  /* 5: prime to any number of lanes */
                const int features = choose(20), timesteps = 2 + choose(3);
                run_packed(kernels, rows, 1, features, units, reset_after);
                run_packed(kernels, rows, timesteps, features, units, reset_after);
            }
        for (int units = 1; units <= 5000; units = units * 3 / 2 + 1)
            for (int features = 0; features <= 40000; features = features * 8 + units)
                check_scratch(kernels, features, units, reset_after);
        for (size_t i = 0; i < sizeof large / sizeof *large; ++i)
            run_packed(kernels, large[i].rows, large[i].timesteps, 3, large[i].units, reset_after);
    }
}

/* ---- dense layers and convolutions ---------------------------------------------------------- */

/* Weights of a dense layer, packed; where those came from may not be touched any more. */
static struct fastgru_layer make_dense(const struct fastgru_format *kernels, int features, int units)
{
    struct fastgru_layer layer;
    memset(&layer, 0, sizeof layer);
    layer.dense = 1, layer.kernels = kernels, layer.features = features, layer.units = units;
    void *memory = array(fastgru_packed_size(&layer), 64);
    const int weights = used;
    void *kernel = numbers(features * units, kernels->itemsize);
    void *bias = choose(4) ? numbers(units, kernels->itemsize) : NULL;
    fastgru_pack(&layer, kernel, NULL, bias, memory);
    while (used > weights)
        ASAN_POISON_MEMORY_REGION(arrays[used - 1].data, arrays[used - 1].bytes), --used;
    return layer;
}

static void run_dense(const struct fastgru_format *kernels, int rows, int steps, int features, int units)
{
    used = 0;
    const struct fastgru_layer layer = make_dense(kernels, features, units);
    struct fastgru_projection projection;
    memset(&projection, 0, sizeof projection);
    projection.rows = rows, projection.steps = steps;
    projection.x = numbers(rows * steps * features, kernels->itemsize);
    set_strides(rows, steps, features, &projection.x_batch_stride, &projection.x_time_stride);
    projection.xw = numbers(rows * steps * units, kernels->itemsize);
    set_strides(rows, steps, units, &projection.xw_stride, &projection.xw_time_stride);
    kernels->dense(&layer, &projection, array(fastgru_dense_scratch(&layer), 64));
    note(projection.xw, rows * steps * units, kernels->itemsize);
}

/* A network of one convolution, with its past as state if it is causal. */
static void run_convolution(
    const struct fastgru_format *kernels, const struct fastgru_functions *functions, int rows, int steps)
{
    const int width = 1 + choose(9), size = 1 + choose(5), units = 1 + choose(40), causal = choose(2);
    const int stride = causal ? 1 : 1 + choose(3), dilation = 1 + choose(2), past = causal ? (size - 1) * dilation : 0;
    const int same = !causal && choose(2), reach = (size - 1) * dilation + 1;
    const int span = same || causal ? 1 : reach;
    used = 0;
    const struct fastgru_layer layer = make_dense(kernels, size * width, units);
    struct fastgru_node node;
    struct fastgru_value values[2];
    struct fastgru_clock clocks[2] = {{0, -1, 1, 1, 0}, {-1, 0, span, stride, 0}};
    struct fastgru_network network;
    struct fastgru_network_call run;
    memset(&node, 0, sizeof node);
    memset(values, 0, sizeof values);
    memset(&network, 0, sizeof network);
    memset(&run, 0, sizeof run);
    node.kind = FASTGRU_CONVOLUTION, node.output = 1, node.layer = &layer, node.functions = functions;
    node.state = past ? 0 : -1, node.mask = FASTGRU_NO_MASK, node.activation = FASTGRU_relu;
    node.size = size, node.stride = stride, node.dilation = dilation;
    node.padding = causal ? FASTGRU_CAUSAL : same ? FASTGRU_SAME : FASTGRU_VALID;
    values[0].width = width, values[1].width = units, values[1].clock = 1;
    values[0].itemsize = values[1].itemsize = kernels->itemsize;
    network.nodes = &node, network.values = values, network.clocks = clocks;
    network.node_count = 1, network.value_count = 2, network.clock_count = 2, network.state_count = past > 0;
    network.output_count = 1, network.outputs[0] = 1;
    if (fastgru_connect(&network))
        exit(7);
    steps = steps < reach ? reach : steps;
    const int windows = (steps - span) / stride + 1;
    const void *initial = past && choose(2) ? numbers(rows * past * width, kernels->itemsize) : NULL;
    void *state = past && choose(2) ? numbers(rows * past * width, kernels->itemsize) : NULL;
    run.batch = rows, run.timesteps = steps;
    run.x = numbers(rows * steps * width, kernels->itemsize);
    set_strides(rows, steps, width, &run.x_batch_stride, &run.x_time_stride);
    run.initial_states = &initial, run.states = &state;
    run.out[0] = numbers(rows * windows * units, kernels->itemsize);
    set_strides(rows, windows, units, &run.out_batch_stride[0], &run.out_time_stride[0]);
    run.memory = NULL;
    run.memory = array(fastgru_workspace(&network, &run), 64);
    fastgru_workspace(&network, &run);
    fastgru_run(&network, &run);
    note(run.out[0], rows * windows * units, kernels->itemsize);
    if (state)
        note(state, rows * past * width, kernels->itemsize);
}

static void run_all_dense(const struct fastgru_format *kernels, const struct fastgru_functions *functions)
{
    for (int units = 1; units <= 70; ++units)
        for (int rows = 1 + units % 5; rows <= 20; rows += 5) {
            const int few = 1 + choose(3), features = 1 + choose(20);  /* in this order, whatever calls want */
            const int others = 1 + choose(9), steps = 1 + choose(20);
            run_dense(kernels, rows, few, features, units);
            run_dense(kernels, few, rows, features, units);
            run_convolution(kernels, functions, others, steps);
        }
    run_dense(kernels, 130, 9, 5, 33);
    run_dense(kernels, 3, 200, 5, 400);
    run_convolution(kernels, functions, 3, 300);
    run_convolution(kernels, functions, 130, 3);
}

/* ---- the elementwise kernels -------------------------------------------------------------- */

static void run_functions(const struct fastgru_functions *functions, size_t itemsize, int units, int f, int g)
{
    const int rows = 3;
    used = 0;
    struct fastgru_layer layer;
    struct fastgru_pass pass;
    memset(&layer, 0, sizeof layer);
    memset(&pass, 0, sizeof pass);
    layer.units = units;
    layer.activation = g;
    layer.recurrent_activation = f;
    layer.biases = numbers(4 * units, itemsize);
    pass.rows = rows;
    pass.xw = numbers(rows * 3 * units, itemsize);
    pass.xw_stride = 3 * units;
    pass.h = numbers(rows * units, itemsize);
    pass.h_next = numbers(rows * units, itemsize);
    pass.scratch = numbers(rows * 3 * units, itemsize);
    pass.out = numbers(rows * units, itemsize);
    pass.out_stride = units;
    unsigned char *actions = array((size_t)rows, 1);
    for (int row = 0; row < rows; ++row)
        actions[row] = (unsigned char)choose(3);
    for (int masked = 0; masked <= 1; ++masked) {
        pass.actions = masked ? actions : NULL;
        functions->gates_after(&layer, &pass);
        functions->gates_reset(&layer, &pass);
        functions->gates_update(&layer, &pass);
    }
    functions->activate(g, 0.5, units, pass.h, pass.h_next);
}

static void run_all_functions(const struct fastgru_functions *functions, size_t itemsize)
{
    for (int units = 1; units <= 40; ++units)
        for (int g = 0; g < FASTGRU_ACTIVATION_COUNT; ++g)
            run_functions(functions, itemsize, units, g % 2 ? FASTGRU_sigmoid : FASTGRU_hard_sigmoid, g);
}

int main(int arguments, char **argument)
{
    const struct fastgru_kernels *kernels;
    (void)argument;
    make_arrays();
    make_numbers();
    const uint32_t first_seed = seed;
    const uint64_t first_hash = hash;
    for (int i = 0; (kernels = fastgru_kernels_at(i)) != NULL && (i == 0 || arguments == 1); ++i) {
        seed = first_seed, hash = first_hash;  /* the same arrays for each */
        run_all_packed(&kernels->f32);
        run_all_packed(&kernels->f64);
        if (kernels->f16.step)
            run_all_packed(&kernels->f16);
        run_all_dense(&kernels->f32, &kernels->f32_functions);
        run_all_dense(&kernels->f64, &kernels->f64_functions);
        if (kernels->f16.step)
            run_all_dense(&kernels->f16, &kernels->f32_functions);
        const uint32_t seed_before = seed;
        const uint64_t hash_before = hash;
        run_all_packed(&kernels->i8);
        run_all_dense(&kernels->i8, &kernels->f32_functions);
        if (fastgru_has_dot(kernels)) {  /* the same bits */
            const uint64_t wanted = hash;
            seed = seed_before, hash = hash_before;
            run_all_packed(&kernels->i8_dot);
            run_all_dense(&kernels->i8_dot, &kernels->f32_functions);
            if (hash != wanted)
                exit(6);
        }
        run_all_functions(&kernels->f32_functions, 4);
        run_all_functions(&kernels->f64_functions, 8);
        printf("%s %016llx\n", kernels->isa, (unsigned long long)hash);
    }
    return 0;
}
