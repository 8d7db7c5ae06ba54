/* sequence.h - what sequence.c and shared.c, which run a GRU alone and with helpers, have in common. */

#ifndef FASTGRU_SEQUENCE_H
#define FASTGRU_SEQUENCE_H

#include "layout.h"

/* Where an array begins, this many elements on. */
static inline char *element(const void *array, ptrdiff_t elements, const struct fastgru_layer *layer)
{
    return (char *)(uintptr_t)array + elements * (ptrdiff_t)layer->kernels->itemsize;
}

static inline size_t state_bytes(const struct fastgru_layer *layer, ptrdiff_t rows)
{
    return (size_t)(rows * layer->units) * layer->kernels->itemsize;
}

/* The actions of the rows from `first_row` on at one step; returns 1 if any of them steps. */
HIDDEN int fastgru_decide(
    const struct fastgru_call *call, ptrdiff_t first_row, ptrdiff_t rows, ptrdiff_t time,
    unsigned char *seen,             /* (rows)  in and out: 1 once the row has stepped     */
    unsigned char *actions);         /* (rows)  overwritten                                */

/* Run a call on up to this many threads. Returns 0, and has done nothing, if it is to run alone. */
HIDDEN int fastgru_share(const struct fastgru_layer *layer, struct fastgru_call *call, int threads);

/* The same on as many as there may be, unless that has not been faster. */
HIDDEN int fastgru_share_if_it_pays(const struct fastgru_layer *layer, struct fastgru_call *call);

/* The same on two threads, of two calls that do not depend on each other and have as many rows and steps. */
HIDDEN int fastgru_share_two(const struct fastgru_layer *const layers[2], struct fastgru_call *const calls[2]);

#endif
