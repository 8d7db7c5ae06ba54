/* Runs every kernel on arrays of exactly the size that it may touch, each in a block of its own,
 * so that AddressSanitizer sees any element beyond; ends with status 0 if none was. */

#include <stdio.h>
#include <stdlib.h>

#include "fastgru/engine.h"

static void *array(size_t elements, size_t itemsize)
{
    void *p = calloc(elements, itemsize);
    if (!p)
        exit(2);
    return p;
}

static void run(const struct fastgru_functions *functions, size_t itemsize, int units, int f, int g)
{
    const size_t rows = 3, n = (size_t)units;
    struct fastgru_gates step = {0};
    void *bias = array(3 * n, itemsize), *recurrent_bias = array(n, itemsize);
    void *three = array(rows * 3 * n, itemsize), *two = array(rows * 2 * n, itemsize);
    unsigned char *mask = (unsigned char *)array(rows, 1), *seen = (unsigned char *)array(rows, 1);
    mask[1] = 1;
    step.rows = (ptrdiff_t)rows;
    step.units = units;
    step.activation = g;
    step.recurrent_activation = f;
    step.bias = bias;
    step.recurrent_bias = recurrent_bias;
    step.xw = array(rows * 3 * n, itemsize);
    step.xw_stride = 3 * units;
    step.h = array(rows * n, itemsize);
    step.out = array(rows * n, itemsize);
    step.out_stride = units;
    for (int masked = 0; masked <= 1; ++masked) {
        step.mask = masked ? mask : NULL;
        step.mask_stride = 1;
        step.seen = masked ? seen : NULL;
        step.hu = three;
        functions->gates_reset_after(&step);
        step.hu = two;
        functions->gates_reset(&step);
        functions->gates_update(&step);
    }
    functions->activate(g, 0.5, units, recurrent_bias, recurrent_bias);
    free(bias), free(recurrent_bias), free(three), free(two), free(mask), free(seen);
    free(step.xw), free(step.h), free(step.out);
}

int main(void)
{
    const struct fastgru_kernels *kernels;
    for (int i = 0; (kernels = fastgru_kernels_at(i)) != NULL; ++i) {
        for (int units = 1; units <= 40; ++units)
            for (int g = 0; g < FASTGRU_ACTIVATION_COUNT; ++g) {
                run(&kernels->f32_functions, 4, units, g % 2 ? FASTGRU_sigmoid : FASTGRU_hard_sigmoid, g);
                run(&kernels->f64_functions, 8, units, g % 2 ? FASTGRU_sigmoid : FASTGRU_hard_sigmoid, g);
            }
        puts(kernels->isa);
    }
    return 0;
}
