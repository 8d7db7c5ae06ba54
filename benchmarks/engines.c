/* engines.c - what engines.py calls of the engine: a float32 layer, reset after, sigmoid and tanh. All memory is the
 * caller's. */

#include <stddef.h>
#include <string.h>

#include "fastgru/fastgru.h"

size_t layer_bytes(void)
{
    return sizeof(struct fastgru_layer);
}

/* Returns the bytes of the packed weights; 0 if the machine does not have the instruction set. */
size_t begin(
    struct fastgru_layer *layer, ptrdiff_t features, ptrdiff_t units,
    const char *isa)                 /* its name; NULL: the best of the machine            */
{
    const struct fastgru_kernels *kernels;
    for (int i = 0; (kernels = fastgru_kernels_at(i)) && isa && strcmp(kernels->isa, isa); ++i) { }
    if (!kernels)
        return 0;
    memset(layer, 0, sizeof *layer);
    layer->kernels = &kernels->f32;
    layer->features = features, layer->units = units, layer->reset_after = 1;
    layer->activation = FASTGRU_tanh, layer->recurrent_activation = FASTGRU_sigmoid;
    return fastgru_packed_size(layer);
}

void pack(
    struct fastgru_layer *layer, const float *kernel, const float *recurrent_kernel, const float *bias, void *memory)
{
    fastgru_pack(layer, kernel, recurrent_kernel, bias, memory);
}

size_t scratch_bytes(const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps)
{
    return fastgru_scratch_size(layer, batch, timesteps);
}

/* One call over all timesteps; returns the walk that the next one is to be given. */
unsigned run(
    const struct fastgru_layer *layer, ptrdiff_t batch, ptrdiff_t timesteps,
    const float *x,                  /* (batch, timesteps, features)                       */
    const float *initial_state,      /* (batch, units)                                     */
    float *out,                      /* (batch, timesteps, units)  overwritten             */
    unsigned walk,
    void *scratch)
{
    struct fastgru_call call;
    memset(&call, 0, sizeof call);
    call.batch = batch, call.timesteps = timesteps;
    call.x = x, call.x_batch_stride = timesteps * layer->features, call.x_time_stride = layer->features;
    call.initial_state = initial_state;
    call.out = out, call.out_batch_stride = timesteps * layer->units, call.out_time_stride = layer->units;
    call.walk = walk, call.scratch = scratch;
    fastgru_sequence(layer, &call);
    return call.walk;
}
