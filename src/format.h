/* format.h - a format of packed weights: how a layer is packed and run.
 *
 * Included after gates.h with WEIGHTS, the format's name, FLOAT16 and QUANTIZED, which needs DOT, the file of the
 * products of int8 weights. For an instruction set that only adds better instructions for one format to ISA, include
 * this once more, after its own target pragma and with its name as FORMAT_ISA, as kernels.h does for bytes. */

#ifndef FORMAT_ISA
#define FORMAT_ISA ISA
#endif
#if QUANTIZED
#include "pack_int8.h"
#include "product_int8.h"
#else
#include "pack.h"
#include "product.h"
#endif
#include "gru.h"
#include "dense.h"
#if QUANTIZED                        /* tiles of other formats are of other sizes           */
#undef EACH_TILE
#undef TILE_ROWS
#undef TILE_PANELS
#undef TILE_NEXT
#endif
#undef WEIGHTS
#undef FLOAT16
#undef QUANTIZED
#undef FORMAT_ISA
