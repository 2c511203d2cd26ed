/* Pairs of rows of logits, x (of p) and y (of q), at one temperature: what kl_logits.h,
 * js_logits.h and compare.h share.
 *
 * The first sweep takes both normalisers, and KL of most rows with them; the second, over the rows
 * in cache, measures each class by
 *     w = exp(x/T), q = exp(y/T), both to the scale of x's reference, and slope = log(q/p) = d/T,
 * d = (y - x) - offset, offset the difference of the normalisers.  Where |slope| < 1 a class is
 * near: its term is w times a polynomial of the slope, whose digits are those of a small
 * divergence.  Beyond it is far, and its term is of w and q themselves, which by then are far
 * enough apart: it is taken out of its vector, and its term goes to a sum of its own, which joins
 * the near ones' where that goes to the lanes.  q is exponentiated only in vectors that need it.
 *
 * Of a stretch of classes one loop takes w and another what follows from it: a class's steps, one
 * waiting for another, are some 120 cycles long, and while they wait they would leave the
 * processor's scheduler no room for those of enough other classes.
 *
 * d is right to the last place, but for what rounding of the offset leaves, which is common to all
 * classes and shows in the drift, the sum of q - w: that q has the same offset.
 */

/* 0 to 3 are x's MAX, REST, ORIGIN, REF.  After JS's first sweep y's are the next; once the rows
 * are related, these are: */
enum {
    K(OTHER) = 4,
    K(OFFSET) = 4, /* T log(Q/P) of the normalisers, in the units of the logits, */
    K(OFFSET_LOW), /* and what rounding took from it */
    K(RATIO),      /* what brings exponentials to y's reference to x's, at that offset */
    K(Q_ORIGIN),
    K(Q_REF),
    K(TERMS),
    K(DRIFT),
    K(PLAIN_KL) /* of kl_logits.h alone */
};
LAST_FIELD(PLAIN_KL);
_Static_assert(FIELD(REF) < FIELD(OTHER), "y's fields stand behind x's");

/* Exponentials below PAIR_LOWEST, in powers of two under the reference, are taken to be there:
 * boosted by PAIR_BOOST they are normal numbers then, a ratio's low piece times them too, and what
 * they add is far below what a divergence of 1e-12 shows.  No slope of a class whose p (or for
 * -slope, q) counts is beyond STEEPEST. */
#if KLCE_REAL_IS_F64
#define PAIR_BOOST 512
#define PAIR_UNBOOST 0x1p-512
#define PAIR_LOWEST (-1000)
#define STEEPEST 2048
#else
#define PAIR_BOOST 64
#define PAIR_UNBOOST 0x1p-64
#define PAIR_LOWEST (-150)
#define STEEPEST 256
#endif

/* OFFSET to Q_REF of rows i on, whose y stands at `other`.  The offset, and the ratio with it, is
 * nan where a row is no distribution. */
KLCE_INLINE void K(relate_logits)(const K(expsum_context) *c, double *state, const double *other,
                                  int i)
{
    v_f64 log_x = K(log1p_for)(K(rest_of)(c, state, i));
    v_f64 log_y = K(log1p_for)(K(rest_of)(c, other, i));
    twofold step = two_sum(K(state)(other, K(MAX), i), -K(state)(state, K(MAX), i));
    twofold offset = two_sum(step.high, set_f64(c->t) * (log_y - log_x));
    offset.low = offset.low + step.low;
    /* T log(ratio) = (origin_y - origin_x) - offset + (ref_y - ref_x) T ln2.  The sums cancel, so
     * nothing may be lost on the way; a reference times ln2_hi is exact. */
    v_f64 origin = K(state)(other, K(ORIGIN), i), ref = K(state)(other, K(REF), i);
    v_f64 steps = ref - K(state)(state, K(REF), i);
    twofold apart = two_sum(origin, -K(state)(state, K(ORIGIN), i));
    twofold rest = two_sum(apart.high, -offset.high);
    v_f64 z = fma_f64(steps, set_f64(c->f.ln2_hi), rest.high) +
              fma_f64(steps, set_f64(c->f.ln2_mid), rest.low + (apart.low - offset.low));
    v_f64 none = offset.high - offset.high;
    store_f64(state + FIELD(OFFSET) + i, offset.high + none);
    store_f64(state + FIELD(OFFSET_LOW) + i, offset.low);
    store_f64(state + FIELD(RATIO) + i, K(exp_for)(&c->f, z, c->t) + none);
    store_f64(state + FIELD(Q_ORIGIN) + i, origin);
    store_f64(state + FIELD(Q_REF) + i, ref);
}

static void K(logits_relate)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    (void)row;
    EACH_STATE(i, count) K(relate_logits)(K(context)(call), state, state + FIELD(OTHER), i);
}

/* What the second sweep measures a pair by. */
typedef struct {
    K(measure) p, q;
    K(v) offset, offset_low, ratio, ratio_low; /* each in two pieces */
} K(pair_measure);

/* Of one row. */
KLCE_INLINE K(pair_measure) K(pair_measure_of)(const K(expsum_context) *c, const double *state)
{
    K(pair_measure) by;
    by.p = K(measure_from)(c, (real)state[FIELD(ORIGIN)], (real)state[FIELD(REF)], PAIR_BOOST,
                           PAIR_LOWEST);
    by.q = K(measure_from)(c, (real)state[FIELD(Q_ORIGIN)], (real)state[FIELD(Q_REF)], PAIR_BOOST,
                           PAIR_LOWEST);
    double offset = state[FIELD(OFFSET)], ratio = state[FIELD(RATIO)];
    by.offset = K(set)((real)offset);
    by.offset_low = K(set)((real)((offset - (real)offset) + state[FIELD(OFFSET_LOW)]));
    by.ratio = K(set)((real)ratio);
    by.ratio_low = K(set)((real)(ratio - (real)ratio));
    return by;
}

/* Of the rows from i on, a lane each. */
KLCE_INLINE K(pair_measure)
    K(pair_measures_of)(const K(expsum_context) *c, const double *state, int i)
{
    K(pair_measure) by;
    by.p = K(measure_of)(c, K(load_field)(state + FIELD(ORIGIN) + i),
                         K(load_field)(state + FIELD(REF) + i), PAIR_BOOST, PAIR_LOWEST);
    by.q = K(measure_of)(c, K(load_field)(state + FIELD(Q_ORIGIN) + i),
                         K(load_field)(state + FIELD(Q_REF) + i), PAIR_BOOST, PAIR_LOWEST);
    v_f64 wide[HALVES], rest[HALVES];
    K(load_halves)(state + FIELD(OFFSET) + i, wide);
    K(load_halves)(state + FIELD(OFFSET_LOW) + i, rest);
    K(split_halves)(wide, rest, &by.offset, &by.offset_low);
    K(load_halves)(state + FIELD(RATIO) + i, wide);
    K(split_halves)(wide, NULL, &by.ratio, &by.ratio_low);
    return by;
}

/* (exp(s) - 1 - s)/s^2 for |s| < 1, to 2^-27.7 (2^-60.5) of itself but for the rounding of the
 * coefficients (tools/minimax.py). */
KLCE_INLINE K(v) K(bend_of)(K(v) s, K(v) square)
{
#if KLCE_REAL_IS_F64
    static const double series[] = {0.5,
                                    0.166666666666666669,
                                    0.0416666666666666622,
                                    0.00833333333333323991,
                                    0.00138888888888895785,
                                    0.000198412698413717537,
                                    0.0000248015873011971339,
                                    2.75573191750780495e-6,
                                    2.75573193249091181e-7,
                                    2.50521204130555024e-8,
                                    2.08767448285079548e-9,
                                    1.60574622616974636e-10,
                                    1.14712406667444713e-11,
                                    7.75286640701371625e-13,
                                    4.79885884506818325e-14};
#else
    static const float series[] = {0.4999999979f,   0.1666666701f,   0.04166673454f,
                                   0.008333310275f, 0.001388545199f, 0.0001984402361f,
                                   2.535482926e-5f, 2.772283453e-6f};
#endif
    return K(series)(series, (int)(sizeof series / sizeof *series) - 1, s, square);
}

/* T log(q/p): y - x without error (Knuth's two-sum), then less the offset.  Where it is infinite
 * its error would be nan. */
KLCE_INLINE K(v) K(log_ratio)(const K(pair_measure) *by, K(v) x, K(v) y)
{
    K(v) s = y - x, t = s - y, error = (y - (s - t)) - (x + t);
    error = K(min)(error, K(set)((real)0x1p120)); /* of nan, that */
    return (s - by->offset) + (error - by->offset_low);
}

/* w of `count` vectors: 14 instructions each in float32. */
KLCE_INLINE void K(weights_of)(const K(expsum_context) *c, const K(pair_measure) *by, const K(v) *x,
                               K(v) *w, int count)
{
    int beside = KLCE_LESSER(count, KLCE_BESIDE);
    KLCE_UNROLL for (int first = 0; first < count; first += beside)
    {
        K(v) z[KLCE_BESIDE], t[KLCE_BESIDE], scale[KLCE_BESIDE];
        KLCE_UNROLL for (int i = 0; i < beside; i++) z[i] =
            K(max)(by->p.floor, x[first + i] - by->p.origin);
        K(exp_tails)(&c->e, z, by->p.magic, t, scale, beside);
        KLCE_UNROLL for (int i = 0; i < beside; i++) w[first + i] =
            K(fma)(t[i], scale[i], scale[i]);
    }
}

/* Of a stretch of up to FLUSH classes; what is no class has any. */
KLCE_INLINE void K(stretch_weights)(const K(expsum_context) *c, const K(pair_measure) *by,
                                    const elem *x, ptrdiff_t count, K(v) *w)
{
    K(v) group[GROUPS * VECTORS];
    ptrdiff_t j = 0;
    for (; j + GROUPS * LANES <= count; j += GROUPS * LANES, w += GROUPS * VECTORS) {
        KLCE_UNROLL for (int g = 0; g < GROUPS; g++)
            K(load_group)(x + j + g * LANES, LANES, 0, group + g * VECTORS);
        K(weights_of)(c, by, group, w, GROUPS * VECTORS);
    }
    for (; j < count; j += LANES, w += VECTORS) {
        K(load_group)(x + j, count - j, 0, group);
        K(weights_of)(c, by, group, w, VECTORS);
    }
}

/* A near class: w (exp(slope) - 1 - slope), and q - w.  11 instructions in float32. */
KLCE_INLINE void K(near_pair)(K(v) w, K(v) slope, K(v) *bend, K(v) *moved)
{
    K(v) square = slope * slope;
    *bend = (w * square) * K(bend_of)(slope, square);
    *moved = K(fma)(w, slope, *bend);
}

/* A far class: q, and where x or y is below the lowest. */
typedef struct {
    K(v) q;
    K(m) no_p, no_q;
} K(far_pair);

KLCE_INLINE K(far_pair)
    K(far_pair_of)(const K(expsum_context) *c, const K(pair_measure) *by, K(v) x, K(v) y)
{
    K(far_pair) pair;
    K(v) y_from = y - by->q.origin;
    K(v) q = K(exp_measured)(c, &by->q, K(max)(by->q.floor, y_from));
    pair.q = K(fma)(q, by->ratio, q * by->ratio_low);
    pair.no_p = K(lt)(x - by->p.origin, by->p.floor);
    pair.no_q = K(lt)(y_from, by->q.floor);
    return pair;
}

/* Takes what is far out of a vector of slopes and w, which are 0 there: those whose size is not
 * below `most`.  Returns whether any is; `far` are those that are classes (others have nan). */
KLCE_INLINE int K(take_far)(real most, K(v) x, K(v) *w, K(v) *slope, K(m) *far)
{
    K(m) is_near = K(lt)(*slope * *slope, K(set)(most * most));
    *far = K(not)(is_near);
    if (!K(any)(*far))
        return 0;
    *far = K (and)(*far, K(eq)(x, x));
    *w = K(select)(is_near, *w, K(set)(0));
    *slope = K(select)(is_near, *slope, K(set)(0));
    return 1;
}

/* A class's term and, for the drift, q - w or what stands for it, both to the scale of w: of a near
 * one, and of a far one. */
typedef void (*K(near_term))(K(v) w, K(v) slope, K(v) *term, K(v) *moved);
typedef void (*K(far_term))(const K(expsum_context) *, const K(pair_measure) *, K(v) x, K(v) y,
                            K(v) w, K(v) d, K(v) *term, K(v) *moved);
typedef struct {
    real most; /* slopes of this size are far */
    K(near_term) near;
    K(far_term) far;
} K(logit_terms);

/* Adds a vector's, those of far classes apart; returns whether it has any. */
KLCE_INLINE int K(add_pair)(const K(expsum_context) *c, const K(pair_measure) *by,
                            K(logit_terms) of, K(v) x, K(v) y, K(v) w, K(v) *sums, K(v) *far_sums)
{
    K(v) d = K(log_ratio)(by, x, y), slope = d * K(set)(c->e.c1), near_w = w, term, moved;
    K(m) far;
    int any_far = K(take_far)(of.most, x, &near_w, &slope, &far);
    if (any_far) {
        of.far(c, by, x, y, w, d, &term, &moved);
        far_sums[0] = far_sums[0] + K(select)(far, term, K(set)(0));
        far_sums[1] = far_sums[1] + K(select)(far, moved, K(set)(0));
    }
    of.near(near_w, slope, &term, &moved);
    sums[0] = sums[0] + term;
    sums[1] = sums[1] + moved;
    return any_far;
}

/* With the terms of KL some 43 instructions a vector in float32, and 30 more where a class is far.
 */
KLCE_INLINE void K(logits_second)(const klce_call *call, K(logit_terms) of, ptrdiff_t row,
                                  ptrdiff_t low, ptrdiff_t high, double *state)
{
    const K(expsum_context) own = *K(context)(call), *c = &own;
    const elem *x = K(row_in)(call, 0, row), *y = K(row_in)(call, 1, row);
    const K(pair_measure) by = K(pair_measure_of)(c, state);
    K(lanes) terms = K(no_lanes)(), drift = K(no_lanes)();
    K(v) x_group[VECTORS], y_group[VECTORS], w[FLUSH / WIDTH], sums[VECTORS][2], far[VECTORS][2];
    for (ptrdiff_t i = low; i < high; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, high);
        EACH_VECTOR(v) sums[v][0] = sums[v][1] = far[v][0] = far[v][1] = K(set)(0);
        K(stretch_weights)(c, &by, x + i, end - i, w);
        for (ptrdiff_t j = i, m = 0; j < end; j += LANES, m += VECTORS) {
            K(prefetch_later_pair)(x + j, y + j, call->n);
            K(load_group)(x + j, end - j, (real)NAN, x_group);
            K(load_group)(y + j, end - j, (real)NAN, y_group);
            EACH_VECTOR(v)
            K(add_pair)(c, &by, of, x_group[v], y_group[v], w[m + v], sums[v], far[v]);
        }
        K(v) term_sum[VECTORS], drift_sum[VECTORS];
        EACH_VECTOR(v)
        {
            term_sum[v] = sums[v][0] + far[v][0];
            drift_sum[v] = sums[v][1] + far[v][1];
        }
        K(add_lanes)(&terms, term_sum);
        K(add_lanes)(&drift, drift_sum);
    }
    state[FIELD(TERMS)] = K(total)(&terms);
    state[FIELD(DRIFT)] = K(total)(&drift);
}

static void K(divergence_add)(const klce_call *call, double *into, const double *from)
{
    (void)call;
    into[FIELD(TERMS)] += from[FIELD(TERMS)];
    into[FIELD(DRIFT)] += from[FIELD(DRIFT)];
}

/* What makes of a sum at the scale of w one of probabilities. */
KLCE_INLINE v_f64 K(of_probabilities)(const K(expsum_context) *c, const double *state, int i)
{
    v_f64 one = set_f64(1), mass = one + K(rest_of)(c, state, i);
    return (one + K(to_maximum)(c, state, i)) * set_f64(PAIR_UNBOOST) / mass;
}

/* The second sweep of a tile of rows of few classes, which are related. */
KLCE_INLINE void K(logits_second_few)(const klce_call *call, K(logit_terms) of,
                                      const K(tile) *x_tile, const K(tile) *y_tile, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    K(v) sums[LANES][2], far[LANES][2], terms[LANES], drift[LANES];
    const int lanes = (int)KLCE_LESSER(LANES, call->n);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        const K(pair_measure) by = K(pair_measures_of)(c, state, i);
        const K(v) *x = x_tile->column[i / WIDTH], *y = y_tile->column[i / WIDTH];
        int any_far = 0;
        for (int l = 0; l < lanes; l++)
            sums[l][0] = sums[l][1] = far[l][0] = far[l][1] = K(set)(0);
        EACH_GROUP(group, call->n) EACH_LANE(l, group, call->n)
        {
            K(v) w;
            K(weights_of)(c, &by, &x[group + l], &w, 1);
            any_far |= K(add_pair)(c, &by, of, x[group + l], y[group + l], w, sums[l], far[l]);
        }
        for (int l = 0; l < lanes; l++) {
            terms[l] = any_far ? sums[l][0] + far[l][0] : sums[l][0];
            drift[l] = any_far ? sums[l][1] + far[l][1] : sums[l][1];
        }
        K(sum_columns)(terms, call->n, state + FIELD(TERMS) + i);
        K(sum_columns)(drift, call->n, state + FIELD(DRIFT) + i);
    }
}

#undef PAIR_BOOST
#undef PAIR_LOWEST
