/* verbs.h - every verb of a vocabulary, lane by lane against plain C.
 *
 * In a copy of src/ it takes the place of kernels.h. The row that dispatch.c finds has the check, of both dtypes, in
 * place of multiply_adds: it returns the number of failures, and prints the first of each verb. Includes itself, for
 * each dtype. */

#ifndef DTYPE

#include <math.h>
#include <stdio.h>

extern int emulated;                 /* 1: the machine is emulated                         */

#define PASTE(name, type, isa) name##_##type##_##isa
#define NAME(name, type, isa) PASTE(name, type, isa)
#define KERNEL(name) NAME(name, DTYPE, ISA)
#define QUOTE(text) #text
#define STRING(text) QUOTE(text)
#define ROW_NAME_OF(isa) fastgru_kernels_##isa
#define ROW_NAME(isa) ROW_NAME_OF(isa)

#define DTYPE f32
#define DOUBLE 0
#include "kernels.h"
#undef DTYPE
#undef DOUBLE
#define DTYPE f64
#define DOUBLE 1
#include "kernels.h"

static float NAME(check, all, ISA)(ptrdiff_t unused)
{
    (void)unused;
    return (float)(NAME(check, f32, ISA)() + NAME(check, f64, ISA)());
}

const struct fastgru_kernels ROW_NAME(ISA) = {.isa = STRING(ISA), .roofline = {.multiply_adds = NAME(check, all, ISA)}};

#else

#include "simd.h"
#include VOCABULARY

#if DOUBLE
#define C(function) function
#define REAL_MIN DBL_MIN
#else
#define C(function) function##f
#define REAL_MIN FLT_MIN
#endif

/* Equal in all bits, or both NaN. */
static int KERNEL(same)(real a, real b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

/* Lane by lane; returns 1, and says so, if one is not as it should be. */
static int KERNEL(differs)(
    const char *verb,
    vreal got,
    const real *wanted)              /* (VLEN)                                             */
{
    real lanes[VLEN];
    memcpy(lanes, &got, sizeof lanes);
    for (int i = 0; i < VLEN; ++i)
        if (!KERNEL(same)(lanes[i], wanted[i])) {
            printf("%s, lane %d of %d: got %a, wanted %a\n", verb, i, (int)VLEN, (double)lanes[i], (double)wanted[i]);
            return 1;
        }
    return 0;
}

/* VLEN of `count` numbers, from any place on. */
static vreal KERNEL(some)(
    const real *numbers,             /* (count)                                            */
    int count, int first,
    real *lanes)                     /* (VLEN)  overwritten: the same                      */
{
    vreal x;
    for (int i = 0; i < VLEN; ++i)
        lanes[i] = numbers[(first + i) % count];
    memcpy(&x, lanes, sizeof x);
    return x;
}

#define EACH_LANE for (int i = 0; i < VLEN; ++i)
#define EXPECT(verb, got, expression)                        \
    do {                                                     \
        real wanted[VLEN];                                   \
        EACH_LANE                                            \
            wanted[i] = expression;                          \
        failed += KERNEL(differs)(#verb, got, wanted);       \
    } while (0)

#if HALF && !DOUBLE
/* The number that float16 bits stand for, and the nearest float16 of a number, ties to even. */
static float NAME(of_half, f32, ISA)(unsigned bits)
{
    const int exponent = (int)(bits >> 10 & 31), mantissa = (int)(bits & 1023);
    const float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
        : ldexpf((float)(exponent ? 1024 + mantissa : mantissa), (exponent ? exponent : 1) - 25);
    return bits & 0x8000 ? -size : size;
}

static unsigned NAME(half_of, f32, ISA)(float x)
{
    const unsigned sign = signbit(x) ? 0x8000 : 0;
    int exponent;
    if (isinf(x) || x == 0)
        return sign | (x == 0 ? 0 : 0x7c00);
    (void)frexpf(x, &exponent);
    exponent = exponent < -13 ? -13 : exponent;
    const double steps = nearbyint(ldexp(fabs((double)x), 11 - exponent));  /* of 2**(exponent - 11), at most 2048 */
    const unsigned bits = ((unsigned)(exponent + 13) << 10) + (unsigned)steps;
    return sign | (bits > 0x7c00 ? 0x7c00 : bits);
}

static int KERNEL(check_half)(void)
{
    int failed = 0;
    for (unsigned first = 0; first < 0x10000; first += VLEN) {
        uint16_t halves[VLEN];
        EACH_LANE
            halves[i] = (uint16_t)(first + (unsigned)i);
        EXPECT(vload_half, vload_half(halves), NAME(of_half, f32, ISA)(first + (unsigned)i));
    }
    for (unsigned bits = 0; bits < 0x7c00 && !failed; ++bits) {
        const float x = NAME(of_half, f32, ISA)(bits), above = bits == 0x7bff ? 65536 : NAME(of_half, f32, ISA)(bits + 1);
        const float tie = (x + above) / 2;
        const float near[] = {x, nextafterf(tie, 0), nextafterf(tie, above), tie};
        for (int i = 0; i < (emulated ? 3 : 4); ++i)  /* Bochs 2.7 rounds ties up */
            for (int sign = -1; sign <= 1; sign += 2)
                if (to_half((float)sign * near[i]) != NAME(half_of, f32, ISA)((float)sign * near[i])) {
                    printf("to_half: got %x of %a\n", to_half((float)sign * near[i]), (double)sign * near[i]);
                    ++failed;
                }
    }
    failed += to_half(INFINITY) != 0x7c00 || to_half(-INFINITY) != 0xfc00 || to_half(1e30f) != 0x7c00
        || to_half(1e-30f) != 0 || (to_half(NAN) & 0x7fff) <= 0x7c00;
    return failed;
}
#endif

/* Loads and stores of 0 to VLEN lanes; what is behind them is another's. */
static int KERNEL(check_memory)(
    const real *numbers,             /* (count)                                            */
    int count)
{
    int failed = 0;
    for (int first = 0; first < count; ++first)
        for (int n = 0; n <= VLEN; ++n) {
            real lanes[VLEN], memory[VLEN + 1];
            const vreal x = KERNEL(some)(numbers, count, first, lanes);
            EXPECT(vload, vload(lanes, n), i < n ? lanes[i] : 0);
            for (int i = 0; i <= VLEN; ++i)
                memory[i] = -7;
            vstore(memory, x, n);
            EXPECT(vstore, vload(memory, VLEN), i < n ? lanes[i] : -7);
            failed += memory[VLEN] != -7;
        }
    return failed;
}

/* Where rounding errors are numbers themselves: neither overflow nor loss below. */
static int KERNEL(check_bounded)(void)
{
    static const real numbers[] = {
        0, 1, -1, 3, REAL_C(-0.1), REAL_C(0.7), REAL_C(-234.567), REAL_C(0.0078126), REAL_C(1e3) / 3, -REAL_C(1e-3) / 7,
    };
    static const real polynomial[] = {1, REAL_C(-0.3), REAL_C(0.125), REAL_C(1.1)};
    const int count = sizeof numbers / sizeof *numbers;
    const real push = (real)(3 * ((lane)1 << (MANTISSA - 1)));
    int failed = 0;
    for (int first = 0; first < count; ++first) {
        real a[VLEN], b[VLEN];
        const vreal x = KERNEL(some)(numbers, count, first, a);
        for (int second = 0; second < count; ++second) {
            const vreal y = KERNEL(some)(numbers, count, second, b);
            EXPECT(vproduct_error, vproduct_error(x, y, x * y) + 0, C(fma)(a[i], b[i], -(a[i] * b[i])) + 0);
            vint n;
            const real factor = numbers[second];
            const vreal nearest = vnearest(x, factor, &n);
            lane integers[VLEN];
            memcpy(integers, &n, sizeof n);
            EXPECT(vnearest, nearest, (FUSED ? C(fma)(a[i], factor, push) : a[i] * factor + push) - push);
            EXPECT(vnearest, nearest, (real)integers[i]);
            EACH_LANE
                failed += fabs((double)integers[i] - (double)a[i] * (double)factor) > 0.51;
        }
        for (int degree = 0; degree <= 3; ++degree) {
            real p[VLEN];
            EACH_LANE {
                p[i] = polynomial[degree];
                for (int j = degree - 1; j >= 0; --j)
                    p[i] = FUSED ? C(fma)(p[i], a[i], polynomial[j]) : p[i] * a[i] + polynomial[j];
            }
            failed += KERNEL(differs)("vpolynomial", vpolynomial(x, polynomial, degree), p);
        }
    }
    for (int n = 1 - EXPONENT_BIAS; n <= EXPONENT_BIAS; ++n) {
        lane exponents[VLEN];
        vint exponent;
        EACH_LANE
            exponents[i] = n + i <= EXPONENT_BIAS ? n + i : n;
        memcpy(&exponent, exponents, sizeof exponent);
        EXPECT(vexp2i, vexp2i(exponent), C(ldexp)(1, (int)exponents[i]));
    }
    return failed;
}

static int KERNEL(check)(void)
{
    static const real numbers[] = {
        0, REAL_C(-0.0), 1, -1, REAL_C(0.1), REAL_C(-2.75), 1000, REAL_MAX, -REAL_MAX, REAL_MIN, -REAL_MIN, REAL_MIN / 2,
        REAL_MIN / 3, -REAL_MIN / 7, REAL_MIN / ((lane)1 << MANTISSA), REAL_C(1e-20), REAL_C(-1e20), INFINITY, -INFINITY,
        NAN, -NAN,
    };
    const int count = sizeof numbers / sizeof *numbers;
    int failed = KERNEL(check_memory)(numbers, count) + KERNEL(check_bounded)();
#if HALF && !DOUBLE
    failed += KERNEL(check_half)();
#endif
    for (int first = 0; first < count && !failed; ++first) {
        real a[VLEN], b[VLEN], c[VLEN];
        const vreal x = KERNEL(some)(numbers, count, first, a);
        EXPECT(vset, vset(numbers[first]), numbers[first]);
        EXPECT(vfrom_bits, vfrom_bits(vbits(x)), a[i]);
        EXPECT(vabs, vabs(x), C(fabs)(a[i]));
        for (int second = 0; second < count; ++second) {
            const vreal y = KERNEL(some)(numbers, count, second, b);
            const vint less = vless(x, y);
            const real bound = numbers[second];
            lane mask[VLEN];
            memcpy(mask, &less, sizeof less);
            EACH_LANE
                failed += mask[i] != -(lane)(a[i] < b[i]);
            EXPECT(vselect, vselect(less, x, y), a[i] < b[i] ? a[i] : b[i]);
            EXPECT(vcopysign, vcopysign(x, y), C(copysign)(a[i], b[i]));
            if (!isnan(bound)) {
                EXPECT(vat_least, vat_least(x, bound), a[i] < bound ? bound : a[i]);
                EXPECT(vat_most, vat_most(x, bound), a[i] > bound ? bound : a[i]);
            }
            for (int third = 0; third < count; ++third) {
                const vreal z = KERNEL(some)(numbers, count, third, c);
                EXPECT(vfma, vfma(x, y, z), FUSED ? C(fma)(a[i], b[i], c[i]) : a[i] * b[i] + c[i]);
            }
        }
    }
    return failed;
}

#undef C
#undef REAL_MIN
#undef EACH_LANE
#undef EXPECT

#endif
