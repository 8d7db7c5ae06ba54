/* dot_int16.h - factors as they are quantized: int16 side by side. Included by the vocabularies that read them so. */

INLINE void FORMAT(arrange_factors)(char *q, ptrdiff_t count)
{
    (void)q, (void)count;
}

INLINE int FORMAT(arranged_factor)(const char *q, ptrdiff_t k)
{
    int16_t integer;
    memcpy(&integer, q + 2 * k, sizeof integer);
    return integer;
}
