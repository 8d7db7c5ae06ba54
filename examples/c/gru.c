/* gru.c - a GRU layer on raw weights, as a stream: a frame comes in, the next state comes out.
 *
 *     gru [file]
 *
 * Runs the layer and the frames of `file`, whose format README.md has, or without one a layer by a
 * formula: frame by frame with fastgru_step, and all at once as a network of one node. Prints the last
 * state, a hexadecimal number a line. Status 0: both agreed in every bit of every output; 1: they did
 * not; 2: nothing was run, and one line on standard error says why.
 *
 * C99, which is C++11 as well; POSIX for aligned memory and for the clock. */

#define _POSIX_C_SOURCE 200112L

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fastgru/fastgru.h"
#include "fastgru/network.h"

enum { MAGIC_BYTES = 4, FIELDS = 5, HEADER_BYTES = MAGIC_BYTES + 4 * FIELDS };
enum { MAX_SIZE = 4096, MAX_TIMESTEPS = 1 << 24 };  /* no product of sizes overflows 64 bits */

/* What a file holds, in its order. */
struct model {
    uint32_t features;
    uint32_t units;
    uint32_t timesteps;
    uint32_t reset_after;            /* 0 or 1                                             */
    uint32_t hard_sigmoid;           /* 1: activation of the gates, 0: sigmoid             */
    float *kernel;                   /* (features, 3 * units); in one block with the rest  */
    float *recurrent_kernel;         /* (units, 3 * units)                                 */
    float *bias;                     /* (3 * units), reset after (2, 3 * units)            */
    float *x;                        /* (timesteps, features)                              */
};

/* ---- errors and memory ------------------------------------------------------------------ */

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("gru: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

/* Memory that begins at a cache line. */
static void *allocate(uint64_t elements, size_t itemsize)
{
    void *memory = NULL;
    if (elements > SIZE_MAX / itemsize || posix_memalign(&memory, 64, (size_t)elements * itemsize))
        fail("out of memory: %.1f MiB wanted", (double)elements * (double)itemsize / (1 << 20));
    return memory;
}

/* ---- the model -------------------------------------------------------------------------- */

/* Floats behind the header. */
static uint64_t count(const struct model *m)
{
    const uint64_t rows = (uint64_t)m->features + m->units + (m->reset_after ? 2 : 1);
    return rows * 3 * m->units + (uint64_t)m->timesteps * m->features;
}

/* Memory for all arrays, in one block; m->kernel is what to free. */
static void allocate_arrays(struct model *m)
{
    const size_t width = 3 * (size_t)m->units;
    m->kernel = (float *)allocate(count(m), sizeof(float));
    m->recurrent_kernel = m->kernel + m->features * width;
    m->bias = m->recurrent_kernel + m->units * width;
    m->x = m->bias + (m->reset_after ? 2 : 1) * width;
}

/* 4 bytes, the lowest first, on any machine. */
static uint32_t little_endian(const unsigned char *bytes)
{
    uint32_t value = 0;
    for (int i = 3; i >= 0; --i)
        value = value << 8 | bytes[i];
    return value;
}

static uint32_t field(const unsigned char *header, int index, const char *name, uint32_t least, uint32_t most)
{
    const uint32_t value = little_endian(header + MAGIC_BYTES + 4 * index);
    if (value < least || value > most)
        fail("%s must be from %u to %u, got %u", name, (unsigned)least, (unsigned)most, (unsigned)value);
    return value;
}

static void read_header(FILE *file, const char *path, struct model *m)
{
    unsigned char header[HEADER_BYTES];
    if (fread(header, 1, HEADER_BYTES, file) != HEADER_BYTES || memcmp(header, "GRU1", MAGIC_BYTES) != 0)
        fail("%s: must begin with GRU1 and %d numbers", path, (int)FIELDS);
    m->features = field(header, 0, "features", 1, MAX_SIZE);
    m->units = field(header, 1, "units", 1, MAX_SIZE);
    m->timesteps = field(header, 2, "timesteps", 1, MAX_TIMESTEPS);
    m->reset_after = field(header, 3, "reset_after", 0, 1);
    m->hard_sigmoid = field(header, 4, "hard_sigmoid", 0, 1);
}

/* Is the file as long as its header says? Asked before any memory is. */
static void check_length(FILE *file, const char *path, const struct model *m)
{
    const uint64_t wanted = HEADER_BYTES + 4 * count(m);
    const long length = fseek(file, 0, SEEK_END) ? -1 : ftell(file);
    if (length < 0 || fseek(file, HEADER_BYTES, SEEK_SET))
        fail("%s: %s", path, strerror(errno));
    if ((uint64_t)length != wanted)
        fail("%s: must have the %llu bytes that its header asks for, got %ld",
             path, (unsigned long long)wanted, length);
}

static void read_model(const char *path, struct model *m)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail("%s: %s", path, strerror(errno));
    read_header(file, path, m);
    check_length(file, path, m);
    allocate_arrays(m);
    const size_t n = (size_t)count(m);
    if (fread(m->kernel, sizeof(float), n, file) != n)
        fail("%s: cannot be read", path);
    fclose(file);
    for (size_t i = 0; i < n; ++i) {
        const uint32_t bits = little_endian((const unsigned char *)(m->kernel + i));
        memcpy(m->kernel + i, &bits, sizeof bits);
    }
}

/* Numbers from -1/4 to 1/4 of a linear congruential generator (ranqd1 of Numerical Recipes). */
static void make_model(struct model *m)
{
    m->features = 40, m->units = 64, m->timesteps = 1000, m->reset_after = 1, m->hard_sigmoid = 0;
    allocate_arrays(m);
    uint32_t number = 0;
    for (size_t i = 0; i < count(m); ++i) {
        number = number * 1664525 + 1013904223;
        m->kernel[i] = ((float)(number >> 8) / (1 << 24) - 0.5f) / 2;
    }
}

/* ---- the layer -------------------------------------------------------------------------- */

/* Returns the memory that it has been packed into. */
static void *make_layer(const struct model *m, struct fastgru_layer *layer)
{
    memset(layer, 0, sizeof *layer);
    layer->kernels = &fastgru_kernels_at(0)->f32;
    layer->features = (ptrdiff_t)m->features;
    layer->units = (ptrdiff_t)m->units;
    layer->reset_after = (int)m->reset_after;
    layer->activation = FASTGRU_tanh;
    layer->recurrent_activation = m->hard_sigmoid ? FASTGRU_hard_sigmoid : FASTGRU_sigmoid;
    void *packed = allocate(fastgru_packed_size(layer), 1);
    fastgru_pack(layer, m->kernel, m->recurrent_kernel, m->bias, packed);
    return packed;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Frame by frame; returns the seconds that it took. */
static double stream(
    const struct fastgru_layer *layer, const struct model *m, void *scratch,
    float *state,                    /* (units)             in and out                     */
    float *out)                      /* (timesteps, units)  overwritten                    */
{
    const double start = seconds();
    unsigned walk = 0;
    for (size_t step = 0; step < m->timesteps; ++step) {
        fastgru_step(layer, 1, m->x + step * m->features, state, &walk, scratch);
        memcpy(out + step * m->units, state, m->units * sizeof(float));
    }
    return seconds() - start;
}

/* All frames in one run of a network: the input is value 0, the GRU writes value 1, which is the output. */
static void run(
    const struct fastgru_layer *layer, const struct model *m,
    float *state,                    /* (units)             in and out                     */
    float *out)                      /* (timesteps, units)  overwritten                    */
{
    struct fastgru_node node;
    struct fastgru_value values[2];
    struct fastgru_network network;
    struct fastgru_network_call run;
    const void *initial[1] = {state};
    void *last[1] = {state};

    memset(&node, 0, sizeof node);
    node.kind = FASTGRU_GRU, node.output = 1, node.layer = layer;
    memset(values, 0, sizeof values);
    values[0].width = layer->features, values[1].width = layer->units;
    values[0].itemsize = values[1].itemsize = sizeof(float);
    memset(&network, 0, sizeof network);
    network.nodes = &node, network.node_count = 1;
    network.values = values, network.value_count = 2;
    network.state_count = network.output_count = 1;
    network.outputs[0] = 1;
    if (fastgru_connect(&network))
        fail("the network is not in running order");

    memset(&run, 0, sizeof run);
    run.batch = 1, run.timesteps = (ptrdiff_t)m->timesteps;
    run.x = m->x, run.x_time_stride = layer->features;
    run.initial_states = initial, run.states = last;
    run.out[0] = out, run.out_time_stride[0] = layer->units;
    run.memory = allocate(fastgru_workspace(&network, &run), 1);
    fastgru_workspace(&network, &run);  /* lays the memory out */
    fastgru_run(&network, &run);
    free(run.memory);
}

int main(int arguments, char **argument)
{
    struct model m;
    struct fastgru_layer layer;
    if (arguments > 2)
        fail("usage: gru [file]");
    if (arguments == 2)
        read_model(argument[1], &m);
    else
        make_model(&m);

    const uint64_t outputs = (uint64_t)m.timesteps * m.units;
    void *packed = make_layer(&m, &layer);
    void *scratch = allocate(fastgru_scratch_size(&layer, 1, 1), 1);
    float *state = (float *)allocate(m.units, sizeof(float));
    float *streamed = (float *)allocate(outputs, sizeof(float));
    float *at_once = (float *)allocate(outputs, sizeof(float));

    memset(state, 0, m.units * sizeof(float));
    const double time = stream(&layer, &m, scratch, state, streamed);
    printf("# %s: %u features, %u units, %u frames of %.2f microseconds\n", fastgru_kernels_at(0)->isa,
           (unsigned)m.features, (unsigned)m.units, (unsigned)m.timesteps, 1e6 * time / m.timesteps);
    for (size_t unit = 0; unit < m.units; ++unit)
        printf("%a\n", (double)state[unit]);

    memset(state, 0, m.units * sizeof(float));
    run(&layer, &m, state, at_once);
    const int differ = memcmp(streamed, at_once, (size_t)outputs * sizeof(float)) != 0;
    if (differ)
        fputs("gru: the stream and the one call differ\n", stderr);

    free(m.kernel), free(packed), free(scratch), free(state), free(streamed), free(at_once);
    if (fflush(stdout) || ferror(stdout))
        fail("cannot write: %s", strerror(errno));
    return differ;
}
