/* biases.h - where biases lie, for each format of the weights: for every panel those of z, r and the candidate and, with
 * the reset after, the candidate's recurrent one; z and r have the sum of both. Dense: in the order of the units. */

static void KERNEL(pack_biases)(
    const struct fastgru_layer *layer,
    const real *bias)                /* as fastgru_pack has it                             */
{
    const ptrdiff_t units = layer->units;
    for (ptrdiff_t i = 0; layer->dense && i < (ptrdiff_t)fastgru_bias_count(layer); ++i)
        ((real *)layer->biases)[i] = bias && i < units ? bias[i] : 0;
    if (layer->dense)
        return;
    for (ptrdiff_t panel = 0; panel < (ptrdiff_t)layer->panel_count; ++panel) {
        real *b = (real *)layer->biases + panel * 4 * VLEN;
        for (ptrdiff_t i = 0, unit = panel * VLEN; i < VLEN; ++i, ++b, ++unit) {
            const real *from = bias && unit < units ? bias + unit : NULL;
            for (int gate = 0; gate < 3; ++gate)
                b[gate * VLEN] = from ? from[gate * units] : 0;
            b[3 * VLEN] = from && layer->reset_after ? from[5 * units] : 0;
            if (from && layer->reset_after) {
                b[0] += from[3 * units];
                b[VLEN] += from[4 * units];
            }
        }
    }
}
