/* A GRU as a filter: float32 frames on standard input, states after them on standard output. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastgru/fastgru.h"
#include "weights.h"

int main(void)
{
    struct fastgru_layer layer;
    memset(&layer, 0, sizeof layer);
    layer.kernels = &fastgru_kernels_at(0)->f32;    /* of the best instruction set here */
    layer.features = FEATURES;
    layer.units = UNITS;
    layer.reset_after = 1;
    layer.activation = FASTGRU_tanh;
    layer.recurrent_activation = FASTGRU_sigmoid;

    void *packed = aligned_alloc(64, fastgru_packed_size(&layer));
    void *scratch = aligned_alloc(64, fastgru_scratch_size(&layer, 1, 1));
    if (!packed || !scratch)
        return 1;
    fastgru_pack(&layer, kernel, recurrent_kernel, bias, packed);

    /* From here on nothing is allocated and nothing can fail. */
    float frame[FEATURES], state[UNITS] = {0};
    unsigned walk = 0;
    while (fread(frame, sizeof frame, 1, stdin) == 1) {
        fastgru_step(&layer, 1, frame, state, &walk, scratch);
        fwrite(state, sizeof state, 1, stdout);
    }
    free(packed);
    free(scratch);
    return 0;
}
