/* workspace.h - what network.c and workspace.c know of a run: where its values lie, how many timesteps they have. */

#ifndef FASTGRU_WORKSPACE_H
#define FASTGRU_WORKSPACE_H

#include "nodes.h"

/* Where the parts of a run's memory lie, which begins with this; if memory is NULL, only `bytes` has a meaning. */
struct workspace {
    size_t bytes;                    /* FASTGRU_TOO_LARGE: more than there can be          */
    ptrdiff_t timesteps;             /* that the run computes                              */
    ptrdiff_t rows;                  /* of a block                                         */
    ptrdiff_t steps;                 /* of a chunk                                         */
    char *memory;
    struct part *values;             /* (values) the input and outputs: set by each run    */
    struct fastgru_call *calls;      /* (nodes)  of GRUs: what is the same in all chunks   */
    char **states;                   /* (nodes)                                            */
    unsigned char **seen;            /* (nodes)  rows that have had a step                 */
    ptrdiff_t *lengths;              /* (2, rows) in order, and which rows they are of     */
    ptrdiff_t *clipped;              /* (rows)   those of a chunk                          */
    ptrdiff_t *spare;                /* (rows)                                             */
    char *scratch;                   /* of the node that runs                              */
};

/* Timesteps of a clock. */
HIDDEN ptrdiff_t fastgru_clock_steps(
    const struct fastgru_network *network, const struct fastgru_network_call *run, int number);

/* Timesteps of a value; 1 if it has none. */
static inline ptrdiff_t steps_of(
    const struct fastgru_network *network, const struct fastgru_network_call *run, int value)
{
    if (network->values[value].last)
        return 1;
    return network->values[value].clock ? fastgru_clock_steps(network, run, network->values[value].clock) : run->timesteps;
}

/* 1 if some of what the node reads is masked. */
static inline int is_masked(const struct fastgru_network_call *run, const struct fastgru_node *node)
{
    return node->mask > 0 || (node->mask == FASTGRU_CALL_MASK && (run->mask || run->lengths));
}

/* 1 if the node is the only one of its segment. */
static inline int is_alone(const struct fastgru_network *network, int node)
{
    const int segment = network->nodes[node].segment;
    return !(node && network->nodes[node - 1].segment == segment)
        && !(node + 1 < network->node_count && network->nodes[node + 1].segment == segment);
}

/* 1 if the output of a GRU is its last state, and need not be written beside it. */
static inline int gives_state(
    const struct fastgru_network *network, const struct fastgru_network_call *run, const struct fastgru_node *node)
{
    const struct fastgru_value *value = network->values + node->output;
    return !is_masked(run, node)
        && (value->last || (value->output >= 0 && steps_of(network, run, node->output) == 1));
}

/* 1 if that output has the layout of a state, which is then written there directly. */
static inline int is_state(
    const struct fastgru_network *network, const struct fastgru_network_call *run, const struct fastgru_node *node)
{
    const struct fastgru_value *value = network->values + node->output;
    return gives_state(network, run, node) && value->output >= 0 && node->column == 0
        && run->out_batch_stride[value->output] == node->layer->units;
}

#endif
