/* The sweep that adds up the terms of a pair of rows of logits, of w, q and slope = d/T as
 * logit_pairs.h has them, of which kl_logits.h, js_logits_logits.h and compare.h make divergences:
 *                 near (|slope| < 1, or JS_NEAR)        far
 *     KL(p||q)    bend = w (exp(slope) - 1 - slope)     (q - w) - w d/T
 *     drift       moved = q - w = w slope + bend        q - w
 *     KL(q||p)    slope moved - bend                    (w - q) + q d/T
 *     twice JS    w (slope exp(slope)                   with a = -|slope|, t = exp(a)
 *                 - (1 + exp(slope))                    max(w, q) (log 2 + ((1 + t)
 *                   log((1 + exp(slope))/2))            log(2/(1 + t)) - log 2) + t a)
 *     |q - p|     |moved|                               |q - w|
 *     p q         (w + moved) w                         q w
 * None but the drift is negative, and each is small where the rows are near; twice JS cancels to a
 * fifth at most.
 *
 * What is summed at a time goes by loops, each with a part of a class's steps.  One waits for
 * another, some 120 cycles from the loads to the last sum, and those that wait would leave the
 * processor's scheduler no room for those of enough other classes. */

enum {
    K(SUM_KL),
    K(SUM_REVERSE_KL),
    K(SUM_JS),
    K(SUM_VARIATION),
    K(SUM_AGREEMENT),
    K(SUM_DRIFT),
    K(PAIR_SUMS),
    /* Which are taken, a bit each.  Where no divergence but JS is, w slope of near classes stands
     * for the drift. */
    K(KL_SUMS) = 1 << K(SUM_KL) | 1 << K(SUM_DRIFT),
    K(JS_SUMS) = 1 << K(SUM_JS) | 1 << K(SUM_DRIFT)
};
#define TAKES(taken, name) ((taken) >> K(SUM_##name) & 1)

/* q - w - w d/T of a class that is far: of w/T, as d/T may be infinite where d is not.  A p that
 * does not count leaves q, but beside a q of 0 it is infinite like any other. */
KLCE_INLINE K(v) K(kl_of_far)(const K(expsum_context) *c, K(v) w, K(v) less, K(v) d, K(m) none)
{
    K(v) least = K(set)((real)-INFINITY), steep = K(set)((real)(STEEPEST * c->t));
    K(v) low = K(select)(none, -steep, least);
    K(v) within = K(max)(low, K(min)(d, steep)); /* of nan, the steepest */
    return K(select)(K(eq)(d, least), -least, K(fma)(-within, w * K(set)(c->e.c1), less));
}

/* Where JS is taken alone, a class is near up to this slope: fewer vectors then have any that are
 * far. */
#define JS_NEAR (KLCE_REAL_IS_F64 ? (real)1 : (real)1.5)

/* Twice the JS of a near class, of JS alone or beside others, over w slope^2, to 2^-28 (2^-57) of
 * itself but for the rounding of the coefficients (tools/minimax.py). */
KLCE_INLINE K(v) K(js_near)(K(v) slope, K(v) square, int alone)
{
#if KLCE_REAL_IS_F64
    (void)alone;
    static const double series[] = {
        0.249999999999999999,     0.124999999999999977,     0.0312500000000000882,
        0.00520833333333473537,   0.000868055555553218948,  0.000173611111085785577,
        0.0000217013889125485475, -5.16699527837390674e-7,  -5.16700923880989079e-8,
        1.89455647607999564e-7,   1.57883776584171903e-8,   -1.2654122548463368e-8,
        -9.04561754720965115e-10, 9.79924525650775394e-10,  6.19377588070589712e-11,
        -7.4375747506384328e-11,  -4.50324729925334028e-12, 4.35094940674419641e-12,
        3.00423456047303921e-13};
#else
    static const float series[] = {0.2499999999f,   0.1249999926f,    0.03125000024f,
                                   0.005208427483f, 0.0008680688234f, 0.00017328952f,
                                   2.165219969e-5f, -1.036721774e-7f};
    static const float farther[] = {0.2499999997f,   0.1249999961f,    0.03125000732f,
                                    0.005208371595f, 0.0008680306702f, 0.0001735076716f,
                                    2.172880614e-5f, -4.018877885e-7f, -6.121277806e-8f,
                                    1.314265971e-7f, 1.476176274e-8f};
    if (alone)
        return K(series)(farther, (int)(sizeof farther / sizeof *farther) - 1, slope, square);
#endif
    return K(series)(series, (int)(sizeof series / sizeof *series) - 1, slope, square);
}

/* That of a far one, over the larger of w and q: t up to exp(-1), to 2^-28.1 (2^-60) of it
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
    static const float series[] = {-0.3068531343f,  -0.4999851053f, 0.1664210597f,
                                   -0.08139125703f, 0.04179354816f, -0.01433231176f};
#endif
    K(v) s = K(series)(series, (int)(sizeof series / sizeof *series) - 1, t, t * t);
    return K(fma)(t, a + s, K(set)(K(KLCE_LN2)));
}

/* A ratio that shows nowhere, nor does it times its logarithm, while its square is a normal number;
 * and the logarithm. */
#define SLIGHT (KLCE_REAL_IS_F64 ? (real)0x1p-60 : (real)0x1p-36)
#define LOG_SLIGHT (KLCE_REAL_IS_F64 ? (real) - 41.6 : (real) - 25)

KLCE_INLINE K(v) K(js_of_far)(K(v) w, K(v) q, K(v) slope)
{
    K(v) high = K(max)(w, q), low = K(min)(w, q);
    K(v) a = K(max)(K(min)(slope, -slope), K(set)(LOG_SLIGHT)); /* of nan, that */
    return high * K(js_far)(a, K(max)(low, high * K(set)(SLIGHT)) / high);
}

/* What is summed at a time: of up to FLUSH classes of a row, or LANES classes of a tile. */
enum { K(STRETCH) = FLUSH / WIDTH > LANES ? FLUSH / WIDTH : LANES };
typedef struct {
    K(v) w[K(STRETCH)], slope[K(STRETCH)], bend[K(STRETCH)], moved[K(STRETCH)];
} K(pair_stretch);

/* Sums of `lanes` vectors each, one after another, the first `used` of which count.  Those that a
 * row adds up in a loop of their own have their far classes' terms apart, nothing while there are
 * none. */
typedef struct {
    K(v) *sum, *far;
    int of_tile, lanes, used, any_far;
} K(pair_sums);

/* w of vectors of x: 16 instructions each in float32. */
KLCE_INLINE void K(weights_of)(const K(expsum_context) *c, const K(pair_measure) *by, const elem *x,
                               K(v) *w, int count)
{
    K(v) z[KLCE_BESIDE], t[KLCE_BESIDE], scale[KLCE_BESIDE];
    KLCE_UNROLL for (int k = 0; k < count; k++) z[k] =
        K(max)(by->p.floor, K(load)(x + k * WIDTH) - by->p.origin);
    K(exp_tails)(&c->e, z, by->p.magic, t, scale, count);
    KLCE_UNROLL for (int k = 0; k < count; k++) w[k] = K(fma)(t[k], scale[k], scale[k]);
}

KLCE_INLINE void K(weigh_stretch)(const K(expsum_context) *c, const K(pair_measure) *by,
                                  const elem *x, int vectors, K(pair_stretch) *of)
{
    int i = 0;
    for (; i + KLCE_BESIDE <= vectors; i += KLCE_BESIDE)
        K(weights_of)(c, by, x + i * WIDTH, of->w + i, KLCE_BESIDE);
    for (; i < vectors; i++)
        K(weights_of)(c, by, x + i * WIDTH, of->w + i, 1);
}

/* The terms of a vector's far classes: of JS where that is taken alone, else of KL, and what goes
 * to the drift; all others are added to vector `at` of their sums. */
KLCE_INLINE void K(far_terms)(const K(expsum_context) *c, const K(pair_measure) *by, int taken,
                              K(v) x, K(v) y, K(v) w, K(v) d, K(m) far, int at, K(pair_sums) *sums,
                              K(v) *term, K(v) *moved)
{
    const int lanes = sums->lanes;
    K(v) *own = sums->far + at, zero = K(set)(0), y_from = y - by->q.origin;
    K(v) q = K(exp_measured)(c, &by->q, K(max)(by->q.floor, y_from));
    q = K(fma)(q, by->ratio, q * by->ratio_low);
    K(m) no_p = K(lt)(x - by->p.origin, by->p.floor), no_q = K(lt)(y_from, by->q.floor);
    if (taken == K(JS_SUMS)) {
        *term = K(js_of_far)(w, q, d * K(set)(c->e.c1));
        *moved = zero;
        return;
    }
    *moved = q - w;
    *term = K(kl_of_far)(c, w, *moved, d, no_p);
    if (taken == K(KL_SUMS))
        return;
    for (int k = 0; !sums->any_far && k < K(SUM_DRIFT); k++)
        for (int i = 0; (taken & ~K(KL_SUMS)) >> k & 1 && i < sums->used; i++)
            sums->far[k * lanes + i] = zero;
    sums->any_far = 1;
#define ADD(name, term)                                                                            \
    if (TAKES(taken, name))                                                                        \
    own[K(SUM_##name) *lanes] = own[K(SUM_##name) *lanes] + K(select)(far, term, zero)
    ADD(REVERSE_KL, K(kl_of_far)(c, q, -*moved, -d, no_q));
    ADD(JS, K(js_of_far)(w, q, d * K(set)(c->e.c1)));
    ADD(VARIATION, K(max)(*moved, -*moved));
    ADD(AGREEMENT, q * (w * K(set)((real)PAIR_UNBOOST)));
#undef ADD
}

/* The terms of a vector's near classes, but those that the first loop takes. */
KLCE_INLINE K(v) K(reverse_kl_of_near)(K(v) slope, K(v) bend, K(v) moved)
{
    return K(fma)(slope, moved, -bend);
}

KLCE_INLINE K(v) K(js_of_near)(K(v) w, K(v) slope)
{
    K(v) square = slope * slope;
    return (w * square) * K(js_near)(slope, square, 0);
}

KLCE_INLINE K(v) K(agreement_of_near)(K(v) w, K(v) moved)
{
    return (w + moved) * (w * K(set)((real)PAIR_UNBOOST));
}

/* Adds the terms of vectors of x and y, whose w are known, to the sums; where those are `fresh`, to
 * nothing.  With those of KL 29 instructions a vector in float32, with those of JS 32, and of each
 * further sum 2 to 12, of a row in a loop of its own; some 35 more where a class is far. */
KLCE_INLINE void K(add_pairs)(const K(expsum_context) *c, const K(pair_measure) *by, int taken,
                              const elem *x, const elem *y, int vectors, K(pair_stretch) *of,
                              K(pair_sums) *sums, int fresh)
{
    const int lanes = sums->lanes, js_alone = taken == K(JS_SUMS);
    const int step = sums->of_tile ? 1 : VECTORS; /* of a tile, any number of vectors */
    const real most = js_alone ? JS_NEAR : 1;
#define ADD(name, term)                                                                            \
    if (TAKES(taken, name))                                                                        \
    sums->sum[K(SUM_##name) *lanes + at] =                                                         \
        fresh ? (term) : sums->sum[K(SUM_##name) *lanes + at] + (term)
#define EACH(name, term)                                                                           \
    for (int m = 0; TAKES(taken, name) && m < vectors; m += step)                                  \
        KLCE_UNROLL for (int at = 0; at < step; at++)                                              \
        {                                                                                          \
            K(v) w = of->w[m + at], slope = of->slope[m + at];                                     \
            K(v) bend = of->bend[m + at], moved = of->moved[m + at];                               \
            (void)w, (void)slope, (void)bend, (void)moved;                                         \
            ADD(name, term);                                                                       \
        }
    for (int m = 0; m < vectors; m += step)
        KLCE_UNROLL for (int k = 0; k < step; k++)
        {
            int i = m + k, at = sums->of_tile ? m : k;
            K(v) own_x = K(load)(x + i * WIDTH), own_y = K(load)(y + i * WIDTH), w = of->w[i];
            K(v) d = K(log_ratio)(by, own_x, own_y), slope = d * K(set)(c->e.c1);
            K(v) square = slope * slope, bend, moved, term, drift, zero = K(set)(0);
            K(m) near = K(lt)(square, K(set)(most * most)), far = K(not)(near);
            if (js_alone) {
                bend = (w * square) * K(js_near)(slope, square, 1);
                moved = w * slope;
            } else {
                K(near_pair)(w, slope, &bend, &moved);
            }
            term = bend;
            drift = moved;
            if (K(any)(far)) {
                K(v) far_term = zero, far_drift = zero;
                far = K (and)(far, K(eq)(own_x, own_x)); /* what is no class has nan */
                if (K(any)(far))
                    K(far_terms)(c, by, taken, own_x, own_y, w, d, far, at, sums, &far_term,
                                 &far_drift);
                of->w[i] = w = K(select)(near, w, zero);
                slope = K(select)(near, slope, zero);
                bend = K(select)(near, bend, zero);
                moved = K(select)(near, moved, zero);
                term = K(select)(far, far_term, bend);
                drift = K(select)(far, far_drift, moved);
            }
            if (js_alone) {
                ADD(JS, term);
            } else {
                ADD(KL, term);
            }
            ADD(DRIFT, drift);
            if (js_alone)
                continue;
            if (!sums->of_tile) {
                of->slope[i] = slope;
                of->bend[i] = bend;
                of->moved[i] = moved;
            } else {
                ADD(REVERSE_KL, K(reverse_kl_of_near)(slope, bend, moved));
                ADD(JS, K(js_of_near)(w, slope));
                ADD(VARIATION, K(max)(moved, -moved));
                ADD(AGREEMENT, K(agreement_of_near)(w, moved));
            }
        }
    if (sums->of_tile || js_alone)
        return;
    EACH(REVERSE_KL, K(reverse_kl_of_near)(slope, bend, moved))
    EACH(JS, K(js_of_near)(w, slope))
    EACH(VARIATION, K(max)(moved, -moved))
    EACH(AGREEMENT, K(agreement_of_near)(w, moved))
#undef EACH
#undef ADD
}

/* The classes at x, or a copy of `count` of them that ends with nan, up to a whole group. */
KLCE_INLINE const elem *K(whole_groups)(const elem *x, ptrdiff_t count, elem *copy)
{
    K(v) group[VECTORS];
    if (count % LANES == 0)
        return x;
    for (ptrdiff_t j = 0; j < count; j += LANES) {
        K(load_group)(x + j, count - j, (real)NAN, group);
        EACH_VECTOR(v) K(store)(copy + j + v * WIDTH, group[v]);
    }
    return copy;
}

/* The sums of a row's classes from `low` to `high`. */
KLCE_INLINE void K(sum_pairs)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                              int taken, const double *state, double *total)
{
    /* A copy: what is stored might change the call's, for all that the compiler knows. */
    const K(expsum_context) own = *K(context)(call), *c = &own;
    const elem *x = K(row_in)(call, 0, row), *y = K(row_in)(call, 1, row);
    const K(pair_measure) by = K(pair_measure_of)(c, state);
    elem x_rest[FLUSH], y_rest[FLUSH];
    K(lanes) lanes[K(PAIR_SUMS)];
    K(v) sum[K(PAIR_SUMS)][VECTORS], far[K(PAIR_SUMS)][VECTORS];
    K(pair_stretch) stretch;
    KLCE_UNROLL for (int k = 0; k < K(PAIR_SUMS); k++)
    {
        lanes[k] = K(no_lanes)();
        EACH_VECTOR(v) far[k][v] = K(set)(0);
    }
    for (ptrdiff_t i = low; i < high; i += FLUSH) {
        K(pair_sums) sums = {sum[0], far[0], 0, VECTORS, VECTORS, 0};
        ptrdiff_t count = KLCE_LESSER(FLUSH, high - i);
        int vectors = (int)((count + LANES - 1) / LANES) * VECTORS;
        for (ptrdiff_t j = 0; j < count; j += LANES)
            K(prefetch_later_pair)(x + i + j, y + i + j, call->n);
        const elem *own_x = K(whole_groups)(x + i, count, x_rest);
        const elem *own_y = K(whole_groups)(y + i, count, y_rest);
        KLCE_UNROLL for (int k = 0; k < K(PAIR_SUMS); k++) EACH_VECTOR(v) sum[k][v] = K(set)(0);
        K(weigh_stretch)(c, &by, own_x, vectors, &stretch);
        K(add_pairs)(c, &by, taken, own_x, own_y, vectors, &stretch, &sums, 0);
        for (int k = 0; k < K(PAIR_SUMS); k++) {
            if (!(taken >> k & 1))
                continue;
            if (sums.any_far && !(K(KL_SUMS) >> k & 1))
                EACH_VECTOR(v) sum[k][v] = sum[k][v] + far[k][v];
            K(add_lanes)(&lanes[k], sum[k]);
        }
    }
    for (int k = 0; k < K(PAIR_SUMS); k++)
        total[k] = taken >> k & 1 ? K(total)(&lanes[k]) : 0;
}

/* Those of the rows of a tile, which are related, to a field each. */
KLCE_INLINE void K(sum_pairs_few)(const klce_call *call, const K(tile) *x_tile,
                                  const K(tile) *y_tile, int taken, const double *state,
                                  double *const *field)
{
    const K(expsum_context) own = *K(context)(call), *c = &own;
    K(v) sum[K(PAIR_SUMS)][LANES], far[K(PAIR_SUMS)][LANES];
    K(pair_stretch) stretch;
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        const K(pair_measure) by = K(pair_measures_of)(c, state, i);
        K(pair_sums) sums = {sum[0], far[0], 1, LANES, (int)KLCE_LESSER(LANES, call->n), 0};
        EACH_GROUP(group, call->n)
        {
            /* Elements are `real` wherever rows are taken so. */
            const elem *x = (const elem *)(x_tile->column[i / WIDTH] + group);
            const elem *y = (const elem *)(y_tile->column[i / WIDTH] + group);
            int vectors = (int)KLCE_LESSER(LANES, call->n - group);
            K(weigh_stretch)(c, &by, x, vectors, &stretch);
            K(add_pairs)(c, &by, taken, x, y, vectors, &stretch, &sums, group == 0);
        }
        for (int k = 0; k < K(PAIR_SUMS); k++) {
            if (!(taken >> k & 1))
                continue;
            for (int l = 0; sums.any_far && !(K(KL_SUMS) >> k & 1) && l < sums.used; l++)
                sum[k][l] = sum[k][l] + far[k][l];
            K(sum_columns)(sum[k], call->n, field[k] + i);
        }
    }
}

#undef TAKES
#undef JS_NEAR
#undef SLIGHT
#undef LOG_SLIGHT
