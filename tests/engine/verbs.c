/* verbs.c - runs the checks of verbs.h on every instruction set of the machine; prints those that passed. With an
 * argument the machine is an emulated one. */

#include <stdio.h>

#include "fastgru/fastgru.h"

int emulated;

int main(int arguments, char **argument)
{
    const struct fastgru_kernels *kernels;
    int failed = 0;
    (void)argument;
    emulated = arguments > 1;
    for (int i = 0; (kernels = fastgru_kernels_at(i)) != NULL; ++i) {
        const int failures = (int)kernels->roofline.multiply_adds(0);
        failed |= failures != 0;
        printf("%s%s\n", kernels->isa, failures ? ": failed" : "");
    }
    return failed;
}
