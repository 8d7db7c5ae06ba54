/* format.h - a format of packed weights: how a layer is packed and run.
 *
 * Included behind gates.h with WEIGHTS, the format's name, and FLOAT16. An instruction set that has better instructions
 * for one format, and is otherwise ISA, is one more inclusion, behind a target of its own and with FORMAT_ISA its name,
 * and one more ROW, in which that format has that name. */

#ifndef FORMAT_ISA
#define FORMAT_ISA ISA
#endif
#include "pack.h"
#include "product.h"
#include "gru.h"
#undef WEIGHTS
#undef FLOAT16
#undef FORMAT_ISA
