/* format.h - a format of packed weights: how a layer is packed and run.
 *
 * Included after gates.h with WEIGHTS, the format's name, and FLOAT16. For an instruction set that only adds better
 * instructions for one format to ISA, include this once more, after its own target pragma and with its name as
 * FORMAT_ISA, and add one more ROW, with that name for that format. */

#ifndef FORMAT_ISA
#define FORMAT_ISA ISA
#endif
#include "pack.h"
#include "product.h"
#include "gru.h"
#undef WEIGHTS
#undef FLOAT16
#undef FORMAT_ISA
