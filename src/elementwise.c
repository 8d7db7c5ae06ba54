/* elementwise.c - what nodes do with each number alone: conversions between float types, and sums and the like
 * of two.
 *
 * float16 is converted by hand, as not every machine has instructions for it. */

#include <stdint.h>
#include <string.h>

#include "fastgru/network.h"
#include "layout.h"

static float float_of(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, bits = half & 0x7fffu;
    uint32_t word;
    float number;
    if (bits >= 0x7c00u) {           /* infinity, NaN */
        word = sign | 0x7f800000u | (bits & 0x3ffu) << 13;
    } else if (bits >= 0x400u) {
        word = sign | ((bits << 13) + (112u << 23));
    } else {                         /* a multiple of 2^-24 */
        number = (float)bits * 5.9604644775390625e-8f;
        memcpy(&word, &number, sizeof word);
        word |= sign;
    }
    memcpy(&number, &word, sizeof number);
    return number;
}

/* Round to nearest, ties to even. */
static uint16_t half_of(double number)
{
    uint64_t word, mantissa, rest, half;
    int exponent, shift;
    uint32_t sign, bits;
    memcpy(&word, &number, sizeof word);
    sign = (uint32_t)(word >> 48) & 0x8000u;
    exponent = (int)(word >> 52 & 0x7ff);
    mantissa = word & 0xfffffffffffffu;
    if (exponent == 0x7ff)           /* infinity, NaN */
        return (uint16_t)(sign | 0x7c00u | (uint32_t)(mantissa >> 42) | (mantissa && !(mantissa >> 42)));
    exponent -= 1023 - 15;
    if (exponent >= 31)
        return (uint16_t)(sign | 0x7c00u);
    if (exponent < -10)
        return (uint16_t)sign;
    mantissa |= (uint64_t)1 << 52;
    shift = exponent > 0 ? 42 : 43 - exponent;  /* denormal: a multiple of 2^-24 */
    bits = (uint32_t)(mantissa >> shift);
    rest = mantissa & (((uint64_t)1 << shift) - 1);
    half = (uint64_t)1 << (shift - 1);
    if (rest > half || (rest == half && (bits & 1)))
        ++bits;                      /* may carry into the exponent, and from there to infinity */
    if (exponent > 0)
        bits += (uint32_t)(exponent - 1) << 10;
    return (uint16_t)(sign | bits);
}

void fastgru_cast(ptrdiff_t n, const void *x, size_t x_size, ptrdiff_t x_stride, void *y, size_t y_size)
{
    const char *in = (const char *)x;
    for (ptrdiff_t i = 0; i < n; ++i, in += x_stride) {
        if (x_size == 4) {
            float number;
            memcpy(&number, in, sizeof number);
            if (y_size == 4)
                ((float *)y)[i] = number;
            else if (y_size == 8)
                ((double *)y)[i] = (double)number;
            else
                ((uint16_t *)y)[i] = half_of((double)number);
        } else if (x_size == 8) {
            double number;
            memcpy(&number, in, sizeof number);
            if (y_size == 4)
                ((float *)y)[i] = (float)number;
            else if (y_size == 8)
                ((double *)y)[i] = number;
            else
                ((uint16_t *)y)[i] = half_of(number);
        } else {
            uint16_t half;
            memcpy(&half, in, sizeof half);
            if (y_size == 4)
                ((float *)y)[i] = float_of(half);
            else if (y_size == 8)
                ((double *)y)[i] = (double)float_of(half);
            else
                ((uint16_t *)y)[i] = half;
        }
    }
}

/* y := `merged` of each two numbers, `left` and `right`. */
#define EACH_TWO(type, real, load, store, merged)                                    \
    for (ptrdiff_t i = 0; i < n; ++i) {                                              \
        const real left = load(((const type *)a)[i]), right = load(((const type *)b)[i]); \
        ((type *)y)[i] = store(merged);                                              \
    }                                                                                \
    break;

/* All kinds, of numbers of `type` that are computed as `real`. */
#define MERGE(type, real, load, store)                                               \
    switch (kind) {                                                                  \
    case FASTGRU_MUL: EACH_TWO(type, real, load, store, left * right)                \
    case FASTGRU_AVE: EACH_TWO(type, real, load, store, load(store(left + right)) / 2) \
    case FASTGRU_SUB: EACH_TWO(type, real, load, store, left - right)                \
    case FASTGRU_DIV: EACH_TWO(type, real, load, store, left / right)                \
    case FASTGRU_MAX: EACH_TWO(type, real, load, store, left > right || left != left ? left : right) \
    case FASTGRU_MIN: EACH_TWO(type, real, load, store, left < right || left != left ? left : right) \
    default: EACH_TWO(type, real, load, store, left + right)                         \
    }

#define ITSELF(x) (x)
#define HALF_OF(x) half_of((double)(x))

void fastgru_merge(int kind, size_t itemsize, ptrdiff_t n, const void *a, const void *b, void *y)
{
    if (itemsize == 4) {
        MERGE(float, float, ITSELF, ITSELF)
    } else if (itemsize == 8) {
        MERGE(double, double, ITSELF, ITSELF)
    } else {                         /* float16 is computed as float32 and rounded */
        MERGE(uint16_t, float, float_of, HALF_OF)
    }
}

#undef EACH_TWO
#undef MERGE
#undef ITSELF
#undef HALF_OF
