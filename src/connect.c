/* connect.c - what is decided once for a network: its segments, and which values they hand to each other. */

#include "nodes.h"

enum {
    RUN_BYTES = 512 << 10,           /* of a chunk of a value: it stays in the second-level cache */
    RUN_STEPS = 16                   /* of a chunk at least: what each chunk costs once is then little */
};

int fastgru_needs_all(const struct fastgru_network *network, const struct fastgru_node *node)
{
    const struct fastgru_value *x = network->values + node->input, *out = network->values + node->output;
    if (node->kind == FASTGRU_GRU)
        return node->go_backwards || node->reverse_output;
    return node->kind >= FASTGRU_RESHAPE || (node->kind >= FASTGRU_MEAN && x->last != out->last)
        || (has_windows(node) && !fastgru_past(node) && (node->size > 1 || node->stride > 1));
}

int fastgru_clock_of(const struct fastgru_network *network, const struct fastgru_node *node)
{
    const struct fastgru_value *value = network->values + (node->kind == FASTGRU_GRU ? node->input : node->output);
    return value->last ? -1 : value->clock;
}

/* Note in `whole` that a segment uses the value: -1 - segment as long as it is the only one, then 1. */
static void use(struct fastgru_value *value, int segment)
{
    if (value->whole == 0)
        value->whole = -1 - segment;
    else if (value->whole != -1 - segment)
        value->whole = 1;
}

/* Note that a node's segment writes a value. */
static void write_to(struct fastgru_value *value, int segment)
{
    use(value, segment);
    value->segment = segment;
}

enum { MOST_READ = 4 };

/* Number the values that a node reads; returns how many they are. */
static int values_read(
    const struct fastgru_node *node,
    int *values)                     /* (MOST_READ)  overwritten                           */
{
    int count = 0;
    values[count++] = node->input;
    if (reads_two(node))
        values[count++] = node->other;
    if (node->mask > 0)
        values[count++] = node->mask;
    if (node->kind == FASTGRU_GRU && node->initial)
        values[count++] = node->initial;
    return count;
}

int fastgru_connect(struct fastgru_network *network)
{
    int segment = -1, open = 0;      /* 1 if the next node can join                        */
    int clock = -1;
    network->input_count = network->input_count ? network->input_count : 1;
    network->chunk_bytes = network->chunk_bytes ? network->chunk_bytes : RUN_BYTES;
    network->chunk_steps = network->chunk_steps ? network->chunk_steps : RUN_STEPS;
    for (int v = 0; v < network->value_count; ++v) {
        network->values[v].whole = v < network->input_count;
        network->values[v].output = network->values[v].segment = -1;
    }
    for (int i = 0; i < network->output_count; ++i)
        network->values[network->outputs[i]].output = i;
    for (int n = 0; n < network->node_count; ++n) {
        struct fastgru_node *node = network->nodes + n;
        int read[MOST_READ], whole, waits = 0;
        const int count = values_read(node, read);
        if (node->output < network->input_count || node->output >= network->value_count)
            return -1;
        for (int i = 0; i < count; ++i) {
            if (read[i] < 0 || read[i] >= network->value_count || !network->values[read[i]].whole)
                return -1;
            waits |= network->values[read[i]].last && network->values[read[i]].segment == segment;
        }
        whole = fastgru_needs_all(network, node);
        if (whole || !open || fastgru_clock_of(network, node) != clock || (waits && clock >= 0))
            ++segment;
        open = !whole;
        clock = fastgru_clock_of(network, node);
        node->segment = segment;
        for (int i = 0; i < count; ++i)
            use(network->values + read[i], segment);
        write_to(network->values + node->output, segment);
        if (node->kind == FASTGRU_GRU && node->final)
            write_to(network->values + node->final, segment);
    }
    for (int v = 0; v < network->value_count; ++v)
        network->values[v].whole = network->values[v].whole > 0;
    return 0;
}
