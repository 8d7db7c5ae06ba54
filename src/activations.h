/* activations.h - activations on one vector, after Keras' formulas.
 *
 * At most 3 ULP from the exact function for every finite
 * argument on every instruction set (asserted by tests/engine/test_activations.py); infinities give
 * the limit, a NaN stays one, saturation is exact: tanh(10) is 1, sigmoid(-200) is 0.
 *
 * Polynomials: tools/fit_polynomials.py. The scheme of tanh and sigmoid, expm1 and exp of
 * the argument instead of a rational function, has half the error at the same cost. */

/* ---- the exponential --------------------------------------------------------------- */

/* (e^r - 1 - r) / r^2 on |r| <= log(2) / 2, relative error 2^-28 (float32), 2^-58 (float64) */
static const real KERNEL(expm1_tail)[] = {
#if DOUBLE
    0.5, 0.16666666666666671008, 0.041666666666666669767, 0.0083333333333261120526,
    0.0013888888888883731828, 0.00019841269874901259234, 2.4801587325605322782e-5,
    2.7557255297969644392e-6, 2.7557273570102139673e-7, 2.5105259538448493419e-8,
    2.0914717341716375952e-9
#else
    0.5f, 0.16666666681659179129f, 0.041666464602026541557f, 0.0083333108895820771937f,
    0.0013933685862617173589f, 0.00019891030654370327738f
#endif
};

/* x = n log(2) + r, |r| <= log(2) / 2; x in about +-2**20 */
INLINE vreal KERNEL(reduced)(vreal x, vint *n)
{
    /* log(2) in two parts: n times the first is exact */
#if DOUBLE
    const real high = 0.69314718055966295651, low = 0.28235290563031577122588448175e-12;
#else
    const real high = 0.693145751953125f, low = 1.428606820309417e-06f;
#endif
    const vreal rounded = vnearest(x, REAL_C(1.44269504088896340736), n);
    return vfma(rounded, vset(-low), vfma(rounded, vset(-high), x));
}

/* e^r - 1 for such an r */
INLINE vreal KERNEL(small_expm1)(vreal r)
{
    return vfma(r * r, vpolynomial(r, KERNEL(expm1_tail), DOUBLE ? 10 : 5), r);
}

/* e^(x + x_low) as the product of a normal number, returned, and of *scale, a power of two,
 * so that a subnormal result is rounded only once; *lost is the relative error of the last
 * rounding, for callers that correct it. */
INLINE vreal KERNEL(scaled_exp)(vreal x, vreal x_low, vreal *scale, vreal *lost)
{
#if DOUBLE
    const real least = -800, most = 720;
#else
    const real least = -120, most = 96;
#endif
    vint n;
    const vreal r = KERNEL(reduced)(vat_most(vat_least(x, least), most), &n);
    const vreal p = KERNEL(small_expm1)(r + x_low);
    const vint half = n >> 1;
    *scale = vexp2i(n - half);
    const vreal one = vset(1), rounded = one + p;
    *lost = ((one - rounded) + p) * vfma(p, p, one - p);
    return rounded * vexp2i(half);
}

INLINE vreal KERNEL(exp)(vreal x)
{
    vreal scale, lost;
    const vreal e = KERNEL(scaled_exp)(x, vset(0), &scale, &lost);
    return e * scale;
}

/* e^x for x <= 0, at first 2**up times as large, so that a subnormal is rounded only once. By products, so
 * that a NaN stays one, whatever n its bits give. */
INLINE vreal KERNEL(exp_below_0)(vreal x)
{
#if DOUBLE
    const int up = 511;
    const real down = 1.4916681462400413487e-154;
#else
    const int up = 63;
    const real down = 1.0842021724855044340e-19f;
#endif
    vint n;
    const vreal p = KERNEL(small_expm1)(KERNEL(reduced)(vat_least(x, DOUBLE ? -800 : -120), &n));
    const vreal s = vexp2i(n + up);
    return vfma(p, s, s) * down;
}

/* e^x - 1 for -40 <= x <= 40 */
INLINE vreal KERNEL(bounded_expm1)(vreal x)
{
    vint n;
    const vreal p = KERNEL(small_expm1)(KERNEL(reduced)(x, &n)), s = vexp2i(n);
    return vfma(p, s, s - 1);
}

/* e^x - 1 for x <= 40; -1 below -40 */
INLINE vreal KERNEL(expm1)(vreal x)
{
    return KERNEL(bounded_expm1)(vat_least(x, -40));
}

/* ---- the logistic family ------------------------------------------------------------- */

INLINE vreal KERNEL(tanh)(vreal x)
{
    /* tanh a = (e^2a - 1) / (e^2a + 1); from `one` on it rounds to 1 */
    const real one = DOUBLE ? 20 : 10;
    const vreal e = KERNEL(bounded_expm1)(2 * vat_most(vabs(x), one));
    return vcopysign(e / (e + 2), x);
}

INLINE vreal KERNEL(clipped_line)(real a, vreal x)
{
    return vat_most(vat_least(x * a + REAL_C(0.5), 0), 1);
}

/* Multiplied, then added: bit for bit what Keras does in float32. */
INLINE vreal KERNEL(hard_sigmoid)(vreal x)
{
    return KERNEL(clipped_line)(REAL_C(0.2), x);
}

INLINE vreal KERNEL(sigmoid)(vreal x)
{
    /* with e = e^-|x| <= 1 neither side overflows, and the left tail is e itself */
    const vreal e = KERNEL(exp_below_0)(-vabs(x));
    const vreal one = vset(1);
    return vselect(vless(x, vset(0)), e, one) / (one + e);
}

/* swish, mish and gelu have more roundings than 3 ULP allow: `correction` collects the relative
 * errors of the worst of them, to first order, and goes into the result at the end. */

/* From 50 on all three are x, infinity included, which the correction would turn into a NaN. */
INLINE vreal KERNEL(linear_above)(vreal x, vreal y)
{
    return vselect(vless(vset(50), x), x, y);
}

INLINE vreal KERNEL(swish)(vreal x)
{
    vreal scale, lost;
    const vreal scaled = KERNEL(scaled_exp)(-vabs(x), vset(0), &scale, &lost);
    const vreal e = scaled * scale, one = vset(1), below = one + e;
    const vint negative = vless(x, vset(0));
    const vreal correction = (vselect(negative, lost, -e * lost) - (e - (below - one))) / below;
    const vreal y = vat_least(x, DOUBLE ? -800 : -120) * vselect(negative, scaled, one) / below;
    return KERNEL(linear_above)(x, vfma(y, correction, y) * vselect(negative, scale, one));
}

INLINE vreal KERNEL(mish)(vreal x)
{
    vreal scale, lost;
    const vreal scaled = KERNEL(scaled_exp)(-vabs(x), vset(0), &scale, &lost);
    const vreal e = scaled * scale, two = vset(2);

    /* x < 0: x n / (n + 2), n = e (e + 2), e = e^x */
    const vreal n = vfma(scaled, e, 2 * scaled), below = vfma(n, scale, two), n_used = below - two;
    const vreal below_lost = vfma(n, scale, -n_used) + (two - (below - n_used));
    const vreal correction = (lost * 4 * (e + 1) / (e + 2) - below_lost) / below;
    const vreal y = vat_least(x, DOUBLE ? -800 : -120) * n / below;
    const vreal left = vfma(y, correction, y) * scale;

    /* x >= 0: x - x t, t = 2 e^2 / (1 + 2 e + 2 e^2), e = e^-x */
    const vreal sum = vfma(2 * e, e, vfma(two, e, vset(1)));
    const vreal t = 2 * e * e / sum;
    const vreal right = vfma(-x, vfma(t, lost * (2 + 2 * e) / sum, t), x);

    return KERNEL(linear_above)(x, vselect(vless(x, vset(0)), left, right));
}

/* ---- softplus ------------------------------------------------------------------------ */

/* (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2, |s| <= 3 - 2 sqrt(2);
 * relative error 2^-29 (float32), 2^-58 (float64) */
static const real KERNEL(log1p_tail)[] = {
#if DOUBLE
    0.66666666666666666463, 0.40000000000000883238, 0.28571428570799784072,
    0.22222222392581262327, 0.18181795547497947082, 0.15386244738881707729,
    0.13268638335555462617, 0.13088035203126112076
#else
    0.66666666554041898486f, 0.40000122211903746631f, 0.28550778622640638971f,
    0.23331614758667431132f
#endif
};

/* log(1 + x), 0 <= x <= 1 */
INLINE vreal KERNEL(log1p)(vreal x)
{
    /* 1 + x = 2^k (1 + f), |f| <= sqrt(2) - 1; log(1 + f) = f - (f^2/2 - s (f^2/2 + R(s^2))) */
#if DOUBLE
    const real log2_high = 0.69314718036912381649, log2_low = 1.9082149292705877e-10;
#else
    const real log2_high = 0.693145751953125f, log2_low = 1.428606820309417e-06f;
#endif
    const vint upper = vless(vset(REAL_C(0.41421356237309504880)), x);
    const vreal zero = vset(0);
    const vreal f = vselect(upper, (x - 1) / 2, x);
    const vreal s = f / (2 + f), s2 = s * s, half_f2 = f * f / 2;
    const vreal rest = s2 * vpolynomial(s2, KERNEL(log1p_tail), DOUBLE ? 7 : 3);
    const vreal below = half_f2 - vfma(s, half_f2 + rest, vselect(upper, vset(log2_low), zero));
    return vselect(upper, vset(log2_high), zero) - (below - f);
}

INLINE vreal KERNEL(softplus)(vreal x)
{
    return vat_least(x, 0) + KERNEL(log1p)(KERNEL(exp_below_0)(-vabs(x)));
}

/* ---- gelu ------------------------------------------------------------------------------ */

/* (P(X < x) - 1/2) / x of a normal X, in x^2, |x| <= 3/4;
 * relative error 2^-35 (float32), 2^-63 (float64) */
static const real KERNEL(normal_centre)[] = {
#if DOUBLE
    0.39894228040143267791, -0.066490380066905436534, 0.0099735570100352423256,
    -0.0011873282154673638026, 0.00011543468746461614416, -9.4446552510266460075e-6,
    6.6596526040096161316e-7, -4.1216377944751367344e-8, 2.2577992096081358248e-9,
    -9.9554413694154569672e-11
#else
    0.3989422803921481595f, -0.066490378877905779199f, 0.009973532286919138117f,
    -0.0011871397032966815174f, 0.00011478187349990900886f, -8.3908927102216365177e-6f
#endif
};

/* (a + 5) e^(a^2/2) P(X > a) of a normal X, in t = (a - 5) / (a + 5);
 * 0 <= a <= 15: relative error 2^-33 (float32), 0 <= a <= 39: 2^-60 (float64) */
static const real KERNEL(mills)[] = {
#if DOUBLE
    0.76919304975006295952, -0.66538250289005685181, 0.49530561596997607372,
    -0.31353315667128744602, 0.1650203661704071478, -0.069118638706878137363,
    0.020795066799260342316, -0.0029933767618687428572, -0.00079786938929585886171,
    0.00054489899275840260683, -0.000059375807358891233265, -0.000049762456168701569506,
    0.000016681639595174006093, 3.9798048993290894763e-6, -2.7707204135122385208e-6,
    -3.345738518771816966e-7, 4.3629255682225392877e-7, 4.0177962891473736526e-8,
    -7.0142206319609260414e-8, -8.5556966282546326969e-9, 1.0797345335746256848e-8,
    2.2208486217731486775e-9, -1.1608864483803090387e-9, -3.8161803530042396782e-10
#else
    0.76919304971004159875f, -0.66538250190298280522f, 0.49530562048586145784f,
    -0.31353320723007626594f, 0.16502026670253727052f, -0.069117936827931057634f,
    0.020796091792858726299f, -0.0029972884006137166305f, -0.00080354116705091042623f,
    0.00055397880662651823982f, -0.000043862397639713257383f, -0.000055419483672397354125f
#endif
};

INLINE vreal KERNEL(gelu)(vreal x)
{
    /* x P(X < k x): near 0 from the centre; else from the tail P(X > a), a = k |x|, never as 1 + erf,
     * which cancels. TensorFlow takes sqrt(1/2) as a float32, in float64 too: hence k = sqrt(2) times that.
     * P(X > a) = e^(-a^2/2) p / shifted, and p is taken at shifted - 5, which is exact: its derivative,
     * about -1 / (a + 5/4) relative, makes good for the step from there to a. */
    const vreal k_less_1 = vset(REAL_C(-1.7114271035800383e-8));
    const vreal size = vat_most(vabs(x), DOUBLE ? 39 : 15);
    const vreal a = vfma(size, k_less_1, size), a_low = vfma(size, k_less_1, size - a);
    const vreal a2 = a * a, shifted = a + 5;
    vreal scale, lost;
    const vreal a2_low = vproduct_error(a, a, a2) + 2 * a * a_low;
    const vreal e = KERNEL(scaled_exp)(a2 / -2, a2_low / -2, &scale, &lost);
    const vreal p = vpolynomial((shifted - 10) / shifted, KERNEL(mills), DOUBLE ? 23 : 11);
    const vreal ep = e * p, xep = vat_least(x, DOUBLE ? -39 : -15) * ep;
    const vreal y = xep / shifted, back = y * shifted;
    const vreal ep_lost = vproduct_error(e, p, ep), step = (a - (shifted - 5)) + a_low;
    const vreal y_lost = vproduct_error(size, ep, -xep) + (vproduct_error(y, shifted, back) - (xep - back));
    const vreal correction = lost + ep_lost / ep - y_lost / xep - step / (a + REAL_C(1.25));
    const vreal left = vfma(y, correction, y) * scale;
    const vreal outer = vselect(vless(x, vset(0)), left, x * (1 - ep / shifted * scale));
    const vreal kx = vcopysign(a, x), centre = vpolynomial(a2, KERNEL(normal_centre), DOUBLE ? 9 : 5);
    const vreal inner = x * vfma(kx, centre, vset(REAL_C(0.5)));
    return KERNEL(linear_above)(x, vselect(vless(a, vset(REAL_C(0.75))), inner, outer));
}

/* ---- by number ------------------------------------------------------------------------- */

/* Called and not inlined: the code of all of them in every kernel would be twenty times as much. */
OUTLINE vreal KERNEL(activation)(int activation, real a, vreal x)
{
    const vreal zero = vset(0);
    switch (activation) {
    case FASTGRU_tanh:
        return KERNEL(tanh)(x);
    case FASTGRU_sigmoid:
        return KERNEL(sigmoid)(x);
    case FASTGRU_hard_sigmoid:
        return KERNEL(hard_sigmoid)(x);
    case FASTGRU_clipped_line:
        return KERNEL(clipped_line)(a, x);
    case FASTGRU_relu:
        return vat_least(x, 0);
    case FASTGRU_relu6:
        return vat_most(vat_least(x, 0), 6);
    case FASTGRU_leaky_relu:
        return vselect(vless(x, zero), x * a, x);
    case FASTGRU_thresholded_relu:
        return vselect(vless(vset(a), x), x, vat_least(x, -REAL_MAX) * 0);
    case FASTGRU_elu:
        return vselect(vless(zero, x), x, KERNEL(expm1)(vat_most(x, 0)) * a);
    case FASTGRU_selu:
        return vselect(vless(zero, x), x * REAL_C(1.0507009873554804934),
                       KERNEL(expm1)(vat_most(x, 0)) * REAL_C(1.7580993408473768600));
    case FASTGRU_gelu:
        return KERNEL(gelu)(x);
    case FASTGRU_swish:
        return KERNEL(swish)(x);
    case FASTGRU_mish:
        return KERNEL(mish)(x);
    case FASTGRU_softplus:
        return KERNEL(softplus)(x);
    case FASTGRU_softsign:
        x = vat_most(vat_least(x, -REAL_MAX), REAL_MAX);
        return x / (1 + vabs(x));
    case FASTGRU_exponential:
        return KERNEL(exp)(x);
    default:
        return x;
    }
}

/* y = f(x) over an array; activate in fastgru.h says the rest. */
static void KERNEL(activate)(int activation, double alpha, ptrdiff_t n, const void *x, void *y)
{
    for (ptrdiff_t i = 0; i < n; i += VLEN) {
        const int lanes = n - i < VLEN ? (int)(n - i) : VLEN;
        const vreal v = vload((const real *)x + i, lanes);
        vstore((real *)y + i, KERNEL(activation)(activation, (real)alpha, v), lanes);
    }
}
