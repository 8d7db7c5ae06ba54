/* nodes.h - what nodes other than GRUs do with a chunk. */

#ifndef FASTGRU_NODES_H
#define FASTGRU_NODES_H

#include "layout.h"

#define FASTGRU_TOO_LARGE ((size_t)-1)

/* a * b, or FASTGRU_TOO_LARGE. */
static inline size_t fastgru_product(size_t a, size_t b)
{
    return b && a > (FASTGRU_TOO_LARGE >> 1) / b ? FASTGRU_TOO_LARGE : a * b;
}

/* Where a value, or a part of it, lies. */
struct part {
    char *data;                      /* its first row and timestep                         */
    ptrdiff_t batch_stride;          /* in elements                                        */
    ptrdiff_t time_stride;           /* of_block: divided by the rows of the block         */
    int of_block;                    /* 1: its rows are those of a block                   */
    int of_chunk;                    /* 1: its timesteps are those of a chunk              */
    ptrdiff_t width;
    size_t itemsize;
};

/* Which rows are masked at which steps: where `bytes` are 0, or from `lengths` on. */
struct masking {
    const unsigned char *bytes;      /* (rows, steps) or NULL                              */
    ptrdiff_t batch_stride;
    ptrdiff_t time_stride;
    const ptrdiff_t *lengths;        /* (rows) of the whole sequence, or NULL              */
    ptrdiff_t first;                 /* the sequence's step at which the chunk begins      */
};

/* A node and its part of the values. */
struct work {
    const struct fastgru_node *node;
    struct part x;
    struct part y;                   /* the other value                                    */
    struct part out;
    ptrdiff_t rows;
    ptrdiff_t x_steps;
    ptrdiff_t steps;                 /* of out; 1 if it has none                           */
    struct masking mask;
    char *past;                      /* (rows, past, width of x)  in and out, or NULL      */
    char *scratch;                   /* fastgru_node_scratch bytes                         */
};

static inline char *at(const struct part *part, ptrdiff_t row, ptrdiff_t step)
{
    return part->data + (row * part->batch_stride + step * part->time_stride) * (ptrdiff_t)part->itemsize;
}

/* Steps before the first one that windows read. */
static inline ptrdiff_t fastgru_past(const struct fastgru_node *node)
{
    return node->state < 0 || node->kind == FASTGRU_GRU ? 0 : (node->size - 1) * node->dilation;
}

/* 1 if the node reads `other`, too. */
static inline int reads_two(const struct fastgru_node *node)
{
    return (node->kind >= FASTGRU_SUM && node->kind <= FASTGRU_MIN) || node->kind == FASTGRU_BOTH
        || node->kind == FASTGRU_SELECT;
}

/* 1 if the node runs window by window. */
static inline int has_windows(const struct fastgru_node *node)
{
    return node->kind == FASTGRU_CONVOLUTION || node->kind == FASTGRU_DEPTHWISE
        || ((node->kind == FASTGRU_MEAN || node->kind == FASTGRU_MOST) && node->size);
}

/* 1 if the node cannot run while its input arrives. */
HIDDEN int fastgru_needs_all(const struct fastgru_network *network, const struct fastgru_node *node);

/* The clock by which a node runs, or -1 if it runs once. */
HIDDEN int fastgru_clock_of(const struct fastgru_network *network, const struct fastgru_node *node);

/* Bytes of scratch of a node whose inputs are this wide. */
HIDDEN size_t fastgru_node_scratch(const struct fastgru_node *node, ptrdiff_t width, size_t itemsize);

/* Run a node that is no GRU. */
HIDDEN void fastgru_run_node(const struct work *work);

#endif
