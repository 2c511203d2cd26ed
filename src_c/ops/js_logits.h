/* js_logits_logits: JS divergence of logits, which at one temperature come down to w ~ p, q and
 * d = log(q/p) as logit_pairs.h has them.  Twice a class's part is
 *     p log(2p/(p + q)) + q log(2q/(p + q)) = w (d exp(d) - (1 + exp(d)) log((1 + exp(d))/2)),
 * w d^2 times a polynomial for |d| < JS_LOGITS_NEAR; beyond, with a = -|d| and t = exp(a), it is
 *     (log 2 + ((1 + t) log(2/(1 + t)) - log 2) + t a) max(w, q),
 * which cancels to a third at most (float64: a fifth).  Unlike rows are swept as unlike.h says,
 * before others are so.  Log-probabilities that are not to be normalised, and logits at two
 * temperatures, take the passes of pairs.h.
 */

#define JS_LOGITS_NEAR (KLCE_REAL_IS_F64 ? 1 : 1.5f)

/* A ratio that shows nowhere, while its square is a normal number. */
#define JS_LOGITS_SLIGHT (KLCE_REAL_IS_F64 ? (real)0x1p-60 : (real)0x1p-36)

PAIR_PASSES(js_logits_logits, 1, 1, js_pair_term)
PAIR_FEW(js_logits_logits, 1, 1, js_pair_term, js_pair_finish)

/* Twice a class's part where |d| < JS_LOGITS_NEAR, over w d^2, to 2^-28 (2^-57) of itself but for
 * the rounding of the coefficients (tools/minimax.py). */
KLCE_INLINE K(v) K(js_near)(K(v) d, K(v) square)
{
#if KLCE_REAL_IS_F64
    static const double series[] = {
        0.249999999999999999,     0.124999999999999977,     0.0312500000000000882,
        0.00520833333333473537,   0.000868055555553218948,  0.000173611111085785577,
        0.0000217013889125485475, -5.16699527837390674e-7,  -5.16700923880989079e-8,
        1.89455647607999564e-7,   1.57883776584171903e-8,   -1.2654122548463368e-8,
        -9.04561754720965115e-10, 9.79924525650775394e-10,  6.19377588070589712e-11,
        -7.4375747506384328e-11,  -4.50324729925334028e-12, 4.35094940674419641e-12,
        3.00423456047303921e-13};
#else
    static const float series[] = {0.2499999997f,   0.1249999961f,    0.03125000732f,
                                   0.005208371595f, 0.0008680306702f, 0.0001735076716f,
                                   2.172880614e-5f, -4.018877885e-7f, -6.121277806e-8f,
                                   1.314265971e-7f, 1.476176274e-8f};
#endif
    return K(series)(series, (int)(sizeof series / sizeof *series) - 1, d, square);
}

/* Twice a class's part beyond, over high: t up to exp(-JS_LOGITS_NEAR), to 2^-28 (2^-60) of it
 * (tools/minimax.py). */
KLCE_INLINE K(v) K(js_far)(K(v) a, K(v) t)
{
#if KLCE_REAL_IS_F64
    static const double series[] = {
        -0.306852819440055119,  -0.499999999999901938,   0.166666666658672721,
        -0.0833333329998539719, 0.0499999916611346694,   -0.0333331969552670511,
        0.0238079857179554114,  -0.0178447778993135492,  0.0138166070545327601,
        -0.0108007070666270945, 0.00810914710978064377,  -0.00529550043923293182,
        0.0025356944697097985,  -0.000633602295199072928};
#else
    static const float series[] = {-0.3068531982f, -0.4999777014f, 0.1662244512f, -0.07936394119f,
                                   0.03281822822f};
#endif
    K(v) s = K(series)(series, (int)(sizeof series / sizeof *series) - 1, t, t * t);
    return K(fma)(t, a + s, K(set)((real)LOG_2));
}

/* Twice the part of a far class, by w and q. */
KLCE_INLINE K(v) K(js_of_far)(K(v) w, K(v) q, K(v) slope)
{
    K(v) high = K(max)(w, q), low = K(min)(w, q), square = slope * slope;
    K(v) a = K(max)(K(min)(slope, -slope), K(set)(-STEEPEST)); /* of nan, that */
    K(v) t = K(max)(low, high * K(set)(JS_LOGITS_SLIGHT)) / high;
    K(m) is_near = K(lt)(K(set)(-JS_LOGITS_NEAR), a);
    return K(select)(is_near, w * (square * K(js_near)(slope, square)), high * K(js_far)(a, t));
}

/* Twice a near class's part, and w d: 15 instructions a vector in float32. */
KLCE_INLINE void K(js_logits_near)(K(v) w, K(v) slope, K(v) *term, K(v) *moved)
{
    K(v) square = slope * slope;
    *term = (w * square) * K(js_near)(slope, square);
    *moved = w * slope;
}

/* Of a far one, without a quotient; it has no part in the drift. */
KLCE_INLINE void K(js_logits_far)(const K(expsum_context) *c, const K(pair_measure) *by, K(v) x,
                                  K(v) y, K(v) w, K(v) d, K(v) *term, K(v) *moved)
{
    K(v) zero = K(set)(0), away = K(max)(K(min)(d, -d), K(set)((real)(UNLIKE_FARTHEST * c->t)));
    w = K(exp_of_either)(c, by, K(lt)(zero, d), x - by->p.origin, y - by->q.origin);
    K(v) js = w * K(js_far)(away * K(set)(c->e.c1), K(exp_of_away)(c, away));
    *term = K(select)(K(eq)(d, d), js, zero); /* both are -inf */
    *moved = zero;
}

static const K(logit_terms)
    K(js_logits_terms) = {JS_LOGITS_NEAR, K(js_logits_near), K(js_logits_far)};

/* A drift s has added s^2/8.  It is at most 1e-7 (1e-16) and shows below 2^-27 (2^-56) alone; there
 * the sum of w d over near classes, within some 10 JS of that of q - w, is good enough. */
static void K(js_logits_plain_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                      double *state)
{
    double result[KLCE_TILE];
    v_f64 most = set_f64(0x1.62e42fefa39efp-1), zero = set_f64(0); /* log 2 */
    v_f64 small = set_f64(KLCE_REAL_IS_F64 ? 0x1p-56 : 0x1p-27);
    EACH_STATE(i, count)
    {
        v_f64 scale = K(of_probabilities)(K(context)(call), state, i);
        v_f64 s = K(state)(state, K(DRIFT), i) * scale;
        v_f64 js = K(state)(state, K(TERMS), i) * scale * set_f64(0.5);
        js = js - select_f64(lt_f64(js, small), s * s * set_f64(0.125), zero);
        js = js + K(state)(state, K(OFFSET), i) * zero;                 /* nan: no distribution */
        store_f64(result + i, min_f64(most, max_f64(zero, js)) + zero); /* of -0, 0 */
    }
    K(put)(call, 5, row, count, result);
}

KLCE_INLINE int K(js_logits_plain)(const klce_call *call)
{
    return K(pair_normalizes)(call) &&
           *(const double *)call->arg[3] == *(const double *)call->arg[4];
}

static void K(js_logits_relate)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *state)
{
    if (K(js_logits_plain)(call)) {
        K(logits_relate)(call, row, count, state);
        K(find_unlike)(call, row, count, state);
    } else {
        K(js_logits_logits_sides)(call, row, count, state);
        for (ptrdiff_t i = 0; i < count; i++)
            state[FIELD(UNLIKE) + i] = 0;
    }
}

/* Of rows that seem unlike. */
static void K(js_logits_sweep_unlike)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                      ptrdiff_t high, double *state)
{
    static const int wanted[K(UNLIKE_SUMS)] = {1};
    double sums[K(UNLIKE_SUMS)] = {0};
    if (state[FIELD(UNLIKE)] != 0)
        K(sum_unlike)(call, row, low, high, state, wanted, sums);
    state[FIELD(TERMS)] = sums[0];
    state[FIELD(DRIFT)] = 0;
}

static void K(js_logits_look)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    double js[KLCE_TILE];
    (void)row;
    if (!K(js_logits_plain)(call))
        return;
    EACH_STATE(i, count)
    {
        v_f64 scale = K(of_probabilities)(K(context)(call), state, i);
        store_f64(js + i, K(state)(state, K(TERMS), i) * scale * set_f64(0.5));
    }
    for (ptrdiff_t i = 0; i < count; i++)
        state[FIELD(UNLIKE) + i] = state[FIELD(UNLIKE) + i] != 0 && js[i] >= UNLIKE_JS;
}

/* Of all others. */
static void K(js_logits_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                               double *state)
{
    if (state[FIELD(UNLIKE)] != 0)
        return;
    if (K(js_logits_plain)(call))
        K(logits_second)(call, K(js_logits_terms), row, low, high, state);
    else
        K(js_logits_logits_sweep)(call, row, low, high, state);
}

static void K(js_logits_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *state)
{
    if (K(js_logits_plain)(call))
        K(js_logits_plain_finish)(call, row, count, state);
    else
        K(js_pair_finish)(call, row, count, state);
}

static void K(js_logits_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(tile) x, y;
    if (!K(js_logits_plain)(call)) {
        K(js_logits_logits_few)(call, row);
        return;
    }
    K(sum_exp_few)(call, 0, row, &x, state);
    K(sum_exp_few)(call, 1, row, &y, state + FIELD(OTHER));
    K(logits_relate)(call, row, KLCE_TILE, state);
    K(logits_second_few)(call, K(js_logits_terms), &x, &y, state);
    K(js_logits_plain_finish)(call, row, KLCE_TILE, state);
}

static const klce_kernel K(js_logits_logits_kernel) = {
    .prepare = K(pairs_prepare),
    .pass = {{K(js_logits_logits_normalizers), SHARED(js_logits_logits_merge), K(js_logits_relate)},
             {K(js_logits_sweep_unlike), SHARED(divergence_add), SHARED(js_logits_look)},
             {K(js_logits_sweep), SHARED(add_of_others), SHARED(js_logits_finish)}},
    .few = TILE_OF(js_logits_few),
};

#undef JS_LOGITS_NEAR
#undef JS_LOGITS_SLIGHT
#undef UNLIKE_FARTHEST
