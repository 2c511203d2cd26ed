/* Pairs of rows of logits, x (of p) and y (of q), at one temperature: what kl_logits.h,
 * js_logits_logits.h and compare.h share.
 *
 * The first sweep takes both normalisers, and KL of most rows with them; a later one, over the rows
 * in cache, measures each class by
 *     w = exp(x/T), q = exp(y/T), both to the scale of x's reference, and slope = log(q/p) = d/T,
 * d = (y - x) - offset, offset the difference of the normalisers.  Where |slope| < 1 a class is
 * near: its terms (pair_terms.h) are w times a polynomial of the slope, whose digits are those of a
 * small divergence.  Beyond it is far, and its terms are of w and q themselves, which by then are
 * far enough apart.  q is exponentiated only in vectors that need it.
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

/* A near class: w (exp(slope) - 1 - slope), and q - w.  11 instructions in float32. */
KLCE_INLINE void K(near_pair)(K(v) w, K(v) slope, K(v) *bend, K(v) *moved)
{
    K(v) square = slope * slope;
    *bend = (w * square) * K(bend_of)(slope, square);
    *moved = K(fma)(w, slope, *bend);
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

#undef PAIR_BOOST
#undef PAIR_LOWEST
