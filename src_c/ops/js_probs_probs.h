/* js_probs_probs: JS divergence of probabilities.  Of unlike rows as unlike.h says, t being the
 * quotient of the smaller and the larger of both.  Others need nothing wider than `real` for a
 * class where there is a fused multiply-add: q is brought to the scale of p by a ratio, so that
 * q ratio - p keeps its digits where the two are near, and the term is that of js_pairs.h, a few
 * units of `real` off.  Rows that are not normalised, or whose sums are far from 1, take the passes
 * of pairs.h.
 *
 * Where p and q have the same sum but for rounding, the ratio is 1, and the sweep that finds out
 * has the terms as well.  With Q = P (1 + s), four times the JS is measured as
 *     4 JS + 2 s KL(q||m) + s^2/2:
 * over (P + Q)/2 instead of P, it is too large by s (KL(q||m) - KL(p||m)), at most s/2 of itself,
 * and by the square of the drift, which finish takes out.
 */
PAIR_PASSES(js_probs_probs, 0, 0, js_pair_term)

/* What is known of a row, in UNLIKE: that the last sweep is to take it (0, as for unlike.h), that
 * it seems unlike and is to be swept as unlike.h says, or that its terms are summed. */
enum { K(TO_SWEEP) = 0, K(SEEMS_UNLIKE), K(SETTLED) };

/* Whether a row's sums leave room in `real` for all that is done with its classes. */
KLCE_INLINE int K(js_is_plain)(const klce_call *call, const double *state)
{
    double p = state[FIELD(SIDE_SCALE)], q = state[FIELD(OTHER) + FIELD(SIDE_SCALE)];
    return K(pair_normalizes)(call) && 0x1p-30 < p && p < 0x1p30 && 0x1p-30 < q && q < 0x1p30;
}

/* The larger and the smaller of p and q, q at the scale of p. */
typedef struct {
    K(v) high, low;
} K(js_sides);

/* Below 2^-110 (2^-900) of 1 a class is taken for 0: products and quotients of it would be
 * subnormal numbers, which cost a hundred cycles.  A ratio of NULL is 1. */
KLCE_INLINE K(js_sides) K(js_sides_of)(K(v) p, K(v) q, const K(v) *ratio)
{
    K(v) zero = K(set)(0), slight = K(set)((real)(KLCE_REAL_IS_F64 ? 0x1p-900 : 0x1p-110));
    p = K(select)(K(lt)(p, slight), zero, p);
    q = K(select)(K(lt)(q, slight), zero, q);
    q = ratio ? q * *ratio : q;
    return (K(js_sides)){K(max)(p, q), K(min)(p, q)};
}

/* The ratio in one piece: what rounding makes of it, all classes of q share, and the JS feels it to
 * second order. */
KLCE_INLINE K(v) K(js_plain_ratio)(const double *state)
{
    return K(set)((real)(state[FIELD(OTHER) + FIELD(SIDE_SCALE)] / state[FIELD(SIDE_SCALE)]));
}

/* What the first classes of a row let expect of it. */
typedef struct {
    int sums_to_one; /* none is larger */
    int unlike;      /* a total variation of 3/8, beside which the JS is at least half its square
                        (Pinsker); as seem_unlike */
} K(js_guess);

KLCE_INLINE K(js_guess) K(js_guess_of)(const elem *p, const elem *q, const K(v) *ratio)
{
    K(v) p_group[VECTORS], q_group[VECTORS], high[VECTORS], low[VECTORS], largest = K(set)(0);
    K(lanes) highs = K(no_lanes)(), lows = K(no_lanes)();
    EACH_VECTOR(v) high[v] = low[v] = K(set)(0);
    for (int j = 0; j < UNLIKE_SAMPLE; j += LANES) {
        K(load_group)(p + j, LANES, 0, p_group);
        K(load_group)(q + j, LANES, 0, q_group);
        EACH_VECTOR(v)
        {
            K(js_sides) sides = K(js_sides_of)(p_group[v], q_group[v], ratio);
            high[v] = high[v] + sides.high;
            low[v] = low[v] + sides.low;
            largest = K(max)(sides.high, largest);
        }
    }
    K(add_lanes)(&highs, high);
    K(add_lanes)(&lows, low);
    double most = K(total)(&highs), least = K(total)(&lows);
    return (K(js_guess)){K(hmax)(largest) <= 1, most - least > 0.375 * (most + least)};
}

/* t, of two zeros 0. */
KLCE_INLINE K(v) K(js_quotient)(const K(js_sides) *sides)
{
    K(v) least = K(set)((real)(KLCE_REAL_IS_F64 ? 0x1p-1000 : 0x1p-120));
    return sides->low / K(max)(sides->high, least);
}

/* Twice a class's JS. */
KLCE_INLINE K(v) K(js_of_unlike_probs)(K(v) high, K(v) quotient)
{
    K(v) t = K(max)(quotient, K(set)((real)0x1p-60)); /* whose square is a normal number */
    K(v) s = K(unlike_series)(t) + K(log_term)(t);
    return high * K(fma)(t, s, K(set)(K(KLCE_LN2)));
}

/* Four times the sum of the terms of n classes of unlike rows, at the scale of p; and with a ratio
 * of NULL, that is 1, what p and q sum to. */
KLCE_INLINE double K(js_sum_unlike)(const elem *p, const elem *q, ptrdiff_t n, const K(v) *ratio,
                                    ptrdiff_t classes, double *p_sum, double *q_sum)
{
    K(v) p_group[VECTORS], q_group[VECTORS], sum[VECTORS], p_part[VECTORS], q_part[VECTORS];
    K(v) larger[FLUSH / WIDTH], quotient[FLUSH / WIDTH], least = K(set)(0);
    K(lanes) terms = K(no_lanes)(), p_lanes = K(no_lanes)(), q_lanes = K(no_lanes)();
    for (ptrdiff_t i = 0; i < n; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, n);
        int vectors = 0;
        EACH_VECTOR(v) p_part[v] = q_part[v] = K(set)(0);
        for (ptrdiff_t j = i; j < end; j += LANES, vectors += VECTORS) {
            if (ratio)
                K(prefetch_later_pair)(p + j, q + j, classes);
            else
                K(prefetch_pair)(p + j, q + j, BLOCK / 2);
            K(load_group)(p + j, end - j, 0, p_group);
            K(load_group)(q + j, end - j, 0, q_group);
            EACH_VECTOR(v)
            {
                K(js_sides) sides = K(js_sides_of)(p_group[v], q_group[v], ratio);
                least = K(min)(K(min)(p_group[v], q_group[v]), least); /* nan is passed over */
                larger[vectors + v] = sides.high;
                quotient[vectors + v] = K(js_quotient)(&sides);
                p_part[v] = p_part[v] + p_group[v];
                q_part[v] = q_part[v] + q_group[v];
            }
        }
        EACH_VECTOR(v) sum[v] = K(set)(0);
        for (int k = 0; k < vectors; k += VECTORS)
            EACH_VECTOR(v)
        sum[v] = sum[v] + K(js_of_unlike_probs)(larger[k + v], quotient[k + v]);
        K(add_lanes)(&terms, sum);
        if (!ratio) {
            K(add_lanes)(&p_lanes, p_part);
            K(add_lanes)(&q_lanes, q_part);
        }
    }
    if (!ratio) {
        *p_sum = K(total)(&p_lanes);
        *q_sum = K(total)(&q_lanes);
    }
    /* Below 0 there is no probability. */
    double negative = K(hmax)(-least);
    return negative > 0 ? (double)NAN : 2 * K(total)(&terms);
}

/* 84 instructions a vector in float32, all told; a division among them. */
static void K(js_probs_sweep_unlike)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                     ptrdiff_t high, double *state)
{
    const elem *p = K(row_in)(call, 0, row), *q = K(row_in)(call, 1, row);
    if (state[FIELD(UNLIKE)] == K(SETTLED))
        return;
    state[FIELD(TERMS)] = state[FIELD(DRIFT)] = 0;
    if (state[FIELD(UNLIKE)] == K(TO_SWEEP))
        return;
    K(v) ratio = K(js_plain_ratio)(state);
    state[FIELD(TERMS)] = state[FIELD(SIDE_SCALE)] * K(js_sum_unlike)(p + low, q + low, high - low,
                                                                      &ratio, call->n, NULL, NULL);
}

static void K(js_probs_add_unlike)(const klce_call *call, double *into, const double *from)
{
    if (into[FIELD(UNLIKE)] != K(SETTLED)) /* else both hold what the sweep before left */
        K(divergence_add)(call, into, from);
}

static void K(js_probs_look)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    (void)call, (void)row;
    for (ptrdiff_t i = 0; i < count; i++)
        if (state[FIELD(UNLIKE) + i] == K(SEEMS_UNLIKE))
            state[FIELD(UNLIKE) + i] =
                state[FIELD(TERMS) + i] >= 4 * UNLIKE_JS ? K(SETTLED) : K(TO_SWEEP);
}

#if KLCE_FMA

/* What brings q to the scale of p.  What rounding takes from a float64 ratio shows in no JS of more
 * than 1e-32, since it is common to all classes; from a float32 one it would in one of 1e-17. */
typedef struct {
    K(v) high, low;
} K(js_ratio);

/* A low piece below 2^-30 of the ratio is left out: tiny numbers times it would be subnormal. */
KLCE_INLINE K(js_ratio) K(js_ratio_of_pieces)(K(v) high, K(v) low)
{
    K(m) slight = K(lt)(K(max)(low, -low), high * K(set)((real)0x1p-30));
    return (K(js_ratio)){high, K(select)(slight, K(set)(0), low)};
}

KLCE_INLINE K(js_ratio) K(js_ratio_of)(const double *state)
{
    double ratio = state[FIELD(OTHER) + FIELD(SIDE_SCALE)] / state[FIELD(SIDE_SCALE)];
    return K(js_ratio_of_pieces)(K(set)((real)ratio), K(set)((real)(ratio - (real)ratio)));
}

/* Of the rows from i on, a lane each. */
KLCE_INLINE K(js_ratio) K(js_ratios_of)(const double *state, int i)
{
    K(v) high, low;
    v_f64 p[HALVES], q[HALVES];
    K(load_halves)(state + FIELD(SIDE_SCALE) + i, p);
    K(load_halves)(state + FIELD(OTHER) + FIELD(SIDE_SCALE) + i, q);
    KLCE_UNROLL for (int h = 0; h < HALVES; h++) q[h] = q[h] / p[h];
    K(split_halves)(q, NULL, &high, &low);
    return K(js_ratio_of_pieces)(high, low);
}

/* Whether those of all of a tile's rows do, whose sums make room for the scales and nothing else;
 * where they do not, nothing is written. */
KLCE_INLINE int K(js_are_plain)(const klce_call *call, double *state)
{
    double *other = state + FIELD(OTHER), scale[2][KLCE_TILE];
    v_f64 least = set_f64(0x1p-30), most = set_f64(0x1p30);
    m_f64 plain = lt_f64(least, most);
    EACH_STATE(i, KLCE_TILE)
    {
        v_f64 p = K(side_scale)(call, state, i), q = K(side_scale)(call, other, i);
        store_f64(scale[0] + i, p);
        store_f64(scale[1] + i, q);
        m_f64 large = and_f64(lt_f64(least, p), lt_f64(least, q));
        plain = and_f64(plain, and_f64(large, and_f64(lt_f64(p, most), lt_f64(q, most))));
    }
    if (!K(pair_normalizes)(call) || any_f64(not_f64(plain)))
        return 0;
    memcpy(state + FIELD(SIDE_SCALE), scale[0], sizeof scale[0]);
    memcpy(other + FIELD(SIDE_SCALE), scale[1], sizeof scale[1]);
    return 1;
}

/* The |q - p|/(q + p) up to which a class is near.  In float32 a longer series costs less than the
 * logarithm of a few classes in every vector. */
#define JS_CLOSE (KLCE_REAL_IS_F64 ? (real)0.5 : (real)0.7)

#if KLCE_REAL_IS_F64
KLCE_INLINE K(v) K(js_close)(K(v) square) { return K(js_even)(square); }
KLCE_INLINE K(v) K(js_far_of_larger)(K(v) u) { return K(js_of_larger)(u); }
#else
/* A coefficient at a time: one instruction less, whose square of a tiny x would be subnormal, and
 * nothing waits for the sum. */
KLCE_INLINE K(v) K(js_series)(const float *c, int degree, K(v) x)
{
    K(v) sum = K(set)(c[degree]);
    KLCE_UNROLL for (int k = degree - 1; k >= 0; k--) sum = K(fma)(sum, x, K(set)(c[k]));
    return sum;
}

/* js_even up to there, to 2^-27 of it but for the rounding of the coefficients
 * (tools/minimax.py). */
KLCE_INLINE K(v) K(js_close)(K(v) square)
{
    static const float c[] = {0.999999994f,   0.1666681301f, 0.06660743519f,  0.03662133273f,
                              0.01550565087f, 0.0413873396f, -0.04251415201f, 0.05693528467f};
    return K(js_series)(c, (int)(sizeof c / sizeof *c) - 1, square);
}

/* js_of_larger beyond, to 2^-30 of its sum with u log(u), likewise. */
KLCE_INLINE K(v) K(js_far_of_larger)(K(v) u)
{
    static const float c[] = {1.38629436f,    -1.693146999f,   0.2499937654f,
                              0.04174668902f, 0.009950215451f, 0.00434963241f};
    return K(js_series)(c, (int)(sizeof c / sizeof *c) - 1, u);
}
#endif

/* What is below the first is taken to be there, and a pair of which neither is above the second, at
 * the scale of the larger sum, has no term: beside the sums it is 2^-64 at most, mostly 2^-94. */
#define JS_LEAST (KLCE_REAL_IS_F64 ? (real)0x1p-900 : (real)0x1p-96)
#define JS_NEGLIGIBLE (KLCE_REAL_IS_F64 ? (real)0x1p-898 : (real)0x1p-94)

/* Four times a class's part, of the scale of p; and *d, q - p there.  Some 26 instructions a vector
 * in float32 with one division, and 30 more where a class is far.  A ratio of NULL is 1. */
KLCE_INLINE K(v) K(js_probs_term)(K(v) p, K(v) q, const K(js_ratio) *ratio, K(v) *d)
{
    K(v) one = K(set)(1), negligible = K(set)(JS_NEGLIGIBLE);
    if (ratio)
        negligible = negligible * K(max)(one, ratio->high);
    p = K(max)(K(set)(JS_LEAST), p); /* nan comes through */
    q = K(max)(K(set)(JS_LEAST), q);
    K(v) sum = ratio ? K(fma)(q, ratio->high, p) : q + p;
    *d = ratio ? K(fma)(q, ratio->high, -p) : q - p;
    if (ratio && !KLCE_REAL_IS_F64)
        *d = K(fma)(q, ratio->low, *d);
    *d = K(select)(K(lt)(sum, negligible), K(set)(0), *d);
    K(v) inverse = one / sum, v = *d * inverse, square = v * v;
    K(v) term = *d * v * K(js_close)(square);
    K(m) far = K(lt)(K(set)(JS_CLOSE * JS_CLOSE), square);
    if (K(any)(far)) {
        /* With u and 2 - u the shares of the smaller and the larger of both, which sum to 2. */
        K(v) u = K(min)(p, ratio ? q * ratio->high : q) * (inverse + inverse);
        K(v) of_far = sum * K(fma)(u, K(log_term)(u), K(js_far_of_larger)(u));
        term = K(select)(far, of_far, term);
    }
    return term;
}

/* The sums of the terms and of q - p, at the scale of p; and with a ratio of NULL, which is 1, of p
 * and of q. */
KLCE_INLINE void K(js_sum_plain)(const elem *p, const elem *q, ptrdiff_t n,
                                 const K(js_ratio) *ratio, ptrdiff_t classes, double *state)
{
    K(lanes) terms = K(no_lanes)(), drift = K(no_lanes)();
    K(lanes) p_lanes = K(no_lanes)(), q_lanes = K(no_lanes)();
    K(v) p_group[VECTORS], q_group[VECTORS], term_sum[VECTORS], drift_sum[VECTORS], d;
    K(v) p_part[VECTORS], q_part[VECTORS], least = K(set)(0);
    for (ptrdiff_t i = 0; i < n; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, n);
        EACH_VECTOR(v) term_sum[v] = drift_sum[v] = p_part[v] = q_part[v] = K(set)(0);
        for (ptrdiff_t j = i; j < end; j += LANES) {
            if (ratio)
                K(prefetch_later_pair)(p + j, q + j, classes);
            else
                K(prefetch_pair)(p + j, q + j, BLOCK / 2);
            K(load_group)(p + j, end - j, 0, p_group);
            K(load_group)(q + j, end - j, 0, q_group);
            EACH_VECTOR(v)
            {
                least = K(min)(K(min)(p_group[v], q_group[v]), least); /* nan is passed over */
                term_sum[v] = term_sum[v] + K(js_probs_term)(p_group[v], q_group[v], ratio, &d);
                drift_sum[v] = drift_sum[v] + d;
                p_part[v] = p_part[v] + p_group[v];
                q_part[v] = q_part[v] + q_group[v];
            }
        }
        K(add_lanes)(&terms, term_sum);
        K(add_lanes)(&drift, drift_sum);
        if (!ratio) {
            K(add_lanes)(&p_lanes, p_part);
            K(add_lanes)(&q_lanes, q_part);
        }
    }
    /* Below 0 there is no probability. */
    state[FIELD(TERMS)] = (double)K(hmax)(-least) > 0 ? (double)NAN : K(total)(&terms);
    state[FIELD(DRIFT)] = K(total)(&drift);
    if (!ratio) {
        state[FIELD(SIDE_SUM)] = K(total)(&p_lanes);
        state[FIELD(OTHER) + FIELD(SIDE_SUM)] = K(total)(&q_lanes);
    }
}

static void K(js_plain_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                              double *state)
{
    const elem *p = K(row_in)(call, 0, row), *q = K(row_in)(call, 1, row);
    const K(js_ratio) ratio = K(js_ratio_of)(state);
    double scale = state[FIELD(SIDE_SCALE)];
    K(js_sum_plain)(p + low, q + low, high - low, &ratio, call->n, state);
    state[FIELD(TERMS)] *= scale;
    state[FIELD(DRIFT)] *= scale;
}

static void K(js_probs_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                              double *state)
{
    if (state[FIELD(UNLIKE)] != K(TO_SWEEP))
        return;
    if (K(js_is_plain)(call, state))
        K(js_plain_sweep)(call, row, low, high, state);
    else
        K(js_probs_probs_sweep)(call, row, low, high, state);
}

/* A row that lies side by side with others, its classes brought together. */
static KLCE_NOINLINE void K(js_gathered_sweep)(const klce_call *call, ptrdiff_t row, double *state)
{
    klce_call own = *call;
    elem room[2][FEW];
    for (int k = 0; k < 2; k++) {
        own.arg[k] = (char *)K(gathered)(call, k, row, room[k]);
        own.core[k] = sizeof(elem);
    }
    state[FIELD(UNLIKE)] = K(TO_SWEEP);
    K(js_probs_sweep)(&own, 0, 0, call->n, state);
}

static void K(js_probs_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(tile) p_tile, q_tile;
    K(v) terms[LANES], drift[LANES], d;
    K(sum_few)(call, 0, row, &p_tile, state + FIELD(SIDE_SUM));
    K(sum_few)(call, 1, row, &q_tile, state + FIELD(OTHER) + FIELD(SIDE_SUM));
    int plain = K(js_are_plain)(call, state);
    if (!plain)
        K(pair_sides)(call, (K(forms)){0, 0}, KLCE_TILE, state);
    for (int i = 0; i < KLCE_TILE && !plain; i++)
        K(js_gathered_sweep)(call, row + i, state + i);
    for (int i = 0; i < KLCE_TILE && plain; i += WIDTH) {
        const K(js_ratio) ratio = K(js_ratios_of)(state, i);
        const K(v) *p = p_tile.column[i / WIDTH], *q = q_tile.column[i / WIDTH];
        K(v) least = K(set)(0);
        EACH_GROUP(group, call->n) EACH_LANE(l, group, call->n)
        {
            K(v) term = K(js_probs_term)(p[group + l], q[group + l], &ratio, &d);
            least = K(min)(K(min)(p[group + l], q[group + l]), least);
            terms[l] = group ? terms[l] + term : term;
            drift[l] = group ? drift[l] + d : d;
        }
        terms[0] = K(select)(K(lt)(least, K(set)(0)), K(set)((real)NAN), terms[0]);
        K(sum_columns)(terms, call->n, state + FIELD(TERMS) + i);
        K(sum_columns)(drift, call->n, state + FIELD(DRIFT) + i);
    }
    EACH_STATE(i, plain ? KLCE_TILE : 0)
    {
        v_f64 scale = K(state)(state, K(SIDE_SCALE), i);
        store_f64(state + FIELD(TERMS) + i, K(state)(state, K(TERMS), i) * scale);
        store_f64(state + FIELD(DRIFT) + i, K(state)(state, K(DRIFT), i) * scale);
    }
    K(js_pair_finish)(call, row, KLCE_TILE, state);
}

#else

static void K(js_probs_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                              double *state)
{
    if (state[FIELD(UNLIKE)] == K(TO_SWEEP))
        K(js_probs_probs_sweep)(call, row, low, high, state);
}

PAIR_FEW(js_probs, 0, 0, js_pair_term, js_pair_finish)

#endif

/* The sums of both rows, and where those may be the same but for rounding, the terms: unlike rows',
 * or plain ones'. */
static void K(js_probs_first)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                              double *state)
{
    const elem *p = K(row_in)(call, 0, row), *q = K(row_in)(call, 1, row);
    double *p_sum = state + FIELD(SIDE_SUM), *q_sum = state + FIELD(OTHER) + FIELD(SIDE_SUM);
    state[FIELD(UNLIKE)] = K(TO_SWEEP);
    state[FIELD(TERMS)] = state[FIELD(DRIFT)] = 0;
    if (sizeof(elem) == sizeof(real) && call->n > FEW && K(pair_normalizes)(call)) {
        K(js_guess) guess = K(js_guess_of)(p, q, NULL);
        if (guess.sums_to_one && guess.unlike) {
            state[FIELD(UNLIKE)] = K(SEEMS_UNLIKE);
            state[FIELD(TERMS)] =
                K(js_sum_unlike)(p + low, q + low, high - low, NULL, call->n, p_sum, q_sum);
            return;
        }
#if KLCE_FMA
        if (guess.sums_to_one) {
            state[FIELD(UNLIKE)] = K(SETTLED);
            K(js_sum_plain)(p + low, q + low, high - low, NULL, call->n, state);
            return;
        }
#endif
    }
    K(js_probs_probs_normalizers)(call, row, low, high, state);
}

static void K(js_probs_first_merge)(const klce_call *call, double *into, const double *from)
{
    K(js_probs_probs_merge)(call, into, from);
    K(divergence_add)(call, into, from);
}

/* The |s| that rounding explains, and that a JS of a ratio of 1 can bear. */
#define SAME_SUM (KLCE_REAL_IS_F64 ? 0x1p-46 : 0x1p-21)

/* Settles the rows of a tile that were swept with a ratio of 1, where their sums say that this was
 * right, and tells which. */
KLCE_INLINE void K(js_settle)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state,
                              int *settled)
{
    double p_sum[KLCE_TILE], q_sum[KLCE_TILE];
    memcpy(p_sum, state + FIELD(SIDE_SUM), sizeof p_sum);
    memcpy(q_sum, state + FIELD(OTHER) + FIELD(SIDE_SUM), sizeof q_sum);
    K(js_probs_probs_sides)(call, row, count, state);
    for (ptrdiff_t i = 0; i < count; i++) {
        double *how = state + FIELD(UNLIKE) + i, *terms = state + FIELD(TERMS) + i;
        int plain = call->n > FEW && K(js_is_plain)(call, state + i);
        int same = fabs(q_sum[i] - p_sum[i]) <= SAME_SUM * p_sum[i];
        settled[i] = plain && same && *how != K(TO_SWEEP);
        if (!settled[i])
            continue;
        double scale = 2 / (p_sum[i] + q_sum[i]);
        *terms *= scale;
        state[FIELD(DRIFT) + i] *= scale;
        if (*how == K(SEEMS_UNLIKE))
            *how = *terms >= 4 * UNLIKE_JS ? K(SETTLED) : K(TO_SWEEP);
    }
}

static void K(js_probs_relate)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    int settled[KLCE_TILE];
    K(js_settle)(call, row, count, state, settled);
    for (ptrdiff_t i = 0; i < count; i++) {
        if (settled[i])
            continue;
        const elem *p = K(row_in)(call, 0, row + i), *q = K(row_in)(call, 1, row + i);
        int plain = call->n > FEW && K(js_is_plain)(call, state + i);
        K(v) ratio = K(js_plain_ratio)(state + i);
        state[FIELD(UNLIKE) + i] =
            plain && K(js_guess_of)(p, q, &ratio).unlike ? K(SEEMS_UNLIKE) : K(TO_SWEEP);
    }
}

#undef SAME_SUM

/* Rows that lie side by side: what they sum to.  Of unlike ones the drift is 0. */
typedef struct {
    K(abreast_sums) p, q, terms, drift;
} K(js_abreast);

/* js_guess_of, of all of them; `unlike` is -1 where they are of both kinds. */
KLCE_INLINE K(js_guess) K(js_guess_abreast)(const klce_call *call, ptrdiff_t row)
{
    double most[KLCE_ABREAST], least[KLCE_ABREAST];
    K(v) largest = K(set)(0);
    int unlike = 0;
    for (int w = 0; w < K(ABREAST_VECTORS); w++) {
        K(v) high[LANES], low[LANES];
        for (int l = 0; l < LANES; l++)
            high[l] = low[l] = K(set)(0);
        for (int j = 0; j < UNLIKE_SAMPLE; j++) {
            K(v) p = K(load)(K(class_of)(call, 0, row, j) + w * WIDTH);
            K(v) q = K(load)(K(class_of)(call, 1, row, j) + w * WIDTH);
            K(js_sides) sides = K(js_sides_of)(p, q, NULL);
            high[j % LANES] = high[j % LANES] + sides.high;
            low[j % LANES] = low[j % LANES] + sides.low;
            largest = K(max)(sides.high, largest);
        }
        K(sum_columns)(high, LANES, most + w * WIDTH);
        K(sum_columns)(low, LANES, least + w * WIDTH);
    }
    for (int i = 0; i < KLCE_ABREAST; i++)
        unlike += most[i] - least[i] > 0.375 * (most[i] + least[i]);
    return (K(js_guess)){K(hmax)(largest) <= 1, unlike == KLCE_ABREAST ? 1 : unlike ? -1 : 0};
}

/* As js_sum_unlike, 105 instructions a pair of vectors in float32, all told; 0 where a row holds a
 * negative number. */
KLCE_INLINE int K(js_sum_unlike_abreast)(const klce_call *call, ptrdiff_t row, K(js_abreast) *sums)
{
    enum { STEP = 2 }; /* classes that go through either half of the chain together */
    K(v) larger[STEP][K(ABREAST_VECTORS)], quotient[STEP][K(ABREAST_VECTORS)], zero = K(set)(0),
                                                                               least = zero;
    for (ptrdiff_t j = 0; j < call->n; j += STEP) {
        const int count = (int)KLCE_LESSER(STEP, call->n - j), lane = (int)(j % LANES);
        for (int c = 0; c < count; c++) {
            const elem *p = K(class_of)(call, 0, row, j + c), *q = K(class_of)(call, 1, row, j + c);
            K(v) *p_part = sums->p.part[lane + c], *q_part = sums->q.part[lane + c];
            K(prefetch_class)(call, 0, row, j + c);
            K(prefetch_class)(call, 1, row, j + c);
            EACH_ABREAST(w)
            {
                K(v) own = K(load)(p + w * WIDTH), other = K(load)(q + w * WIDTH);
                K(js_sides) sides = K(js_sides_of)(own, other, NULL);
                least = K(min)(K(min)(own, other), least); /* nan is passed over */
                larger[c][w] = sides.high;
                quotient[c][w] = K(js_quotient)(&sides);
                p_part[w] = p_part[w] + own;
                q_part[w] = q_part[w] + other;
            }
        }
        for (int c = 0; c < count; c++) {
            K(v) *terms = sums->terms.part[lane + c];
            EACH_ABREAST(w)
            terms[w] = terms[w] + K(js_of_unlike_probs)(larger[c][w], quotient[c][w]);
        }
        if (K(is_flushed)(j + count - 1, call->n)) {
            K(flush_abreast)(&sums->p);
            K(flush_abreast)(&sums->q);
            K(flush_abreast)(&sums->terms);
        }
    }
    return !K(any)(K(lt)(least, zero));
}

/* As js_sum_plain, where there is one. */
KLCE_INLINE int K(js_sum_plain_abreast)(const klce_call *call, ptrdiff_t row, K(js_abreast) *sums)
{
#if KLCE_FMA
    K(v) zero = K(set)(0), least = zero;
    for (ptrdiff_t j = 0; j < call->n; j++) {
        const elem *p = K(class_of)(call, 0, row, j), *q = K(class_of)(call, 1, row, j);
        const int lane = (int)(j % LANES);
        K(v) *p_part = sums->p.part[lane], *q_part = sums->q.part[lane], d;
        K(v) *terms = sums->terms.part[lane], *drift = sums->drift.part[lane];
        K(prefetch_class)(call, 0, row, j);
        K(prefetch_class)(call, 1, row, j);
        EACH_ABREAST(w)
        {
            K(v) own = K(load)(p + w * WIDTH), other = K(load)(q + w * WIDTH);
            least = K(min)(K(min)(own, other), least); /* nan is passed over */
            terms[w] = terms[w] + K(js_probs_term)(own, other, NULL, &d);
            drift[w] = drift[w] + d;
            p_part[w] = p_part[w] + own;
            q_part[w] = q_part[w] + other;
        }
        if (K(is_flushed)(j, call->n)) {
            K(flush_abreast)(&sums->p);
            K(flush_abreast)(&sums->q);
            K(flush_abreast)(&sums->terms);
            K(flush_abreast)(&sums->drift);
        }
    }
    return !K(any)(K(lt)(least, zero));
#else
    return (void)call, (void)row, (void)sums, 0;
#endif
}

/* Where the first sweep settles all of them. */
static int K(js_probs_block)(const klce_call *call, ptrdiff_t row)
{
    K(js_abreast) sums;
    K(abreast_states) states;
    if (!K(pair_normalizes)(call))
        return 0;
    K(js_guess) guess = K(js_guess_abreast)(call, row);
    if (!guess.sums_to_one || guess.unlike < 0)
        return 0;
    memset(&sums, 0, sizeof sums);
    if (!(guess.unlike ? K(js_sum_unlike_abreast)(call, row, &sums)
                       : K(js_sum_plain_abreast)(call, row, &sums)))
        return 0;
    K(total_abreast)(&sums.p, &states, K(SIDE_SUM));
    K(total_abreast)(&sums.q, &states, K(OTHER) + K(SIDE_SUM));
    K(total_abreast)(&sums.terms, &states, K(TERMS));
    K(total_abreast)(&sums.drift, &states, K(DRIFT));
    for (int t = 0; t < KLCE_ABREAST / KLCE_TILE; t++) {
        double *state = states.tile[t];
        int settled[KLCE_TILE];
        for (int i = 0; i < KLCE_TILE; i++) {
            state[FIELD(UNLIKE) + i] = guess.unlike ? K(SEEMS_UNLIKE) : K(SETTLED);
            state[FIELD(TERMS) + i] *= guess.unlike ? 2 : 1;
        }
        K(js_settle)(call, row, KLCE_TILE, state, settled);
        for (int i = 0; i < KLCE_TILE; i++)
            if (!settled[i] || state[FIELD(UNLIKE) + i] != K(SETTLED))
                return 0;
    }
    for (int i = 0; i < KLCE_ABREAST; i += KLCE_TILE)
        K(js_pair_finish)(call, row + i, KLCE_TILE, states.tile[i / KLCE_TILE]);
    return 1;
}

ABREAST_OF(js_probs)

static const klce_kernel K(js_probs_probs_kernel) = {
    .prepare = K(pairs_prepare),
    .pass = {{K(js_probs_first), SHARED(js_probs_first_merge), K(js_probs_relate)},
             {K(js_probs_sweep_unlike), SHARED(js_probs_add_unlike), SHARED(js_probs_look)},
             {K(js_probs_sweep), SHARED(add_of_others), SHARED(js_pair_finish)}},
    .few = TILE_OF(js_probs_few),
    /* Of 16 bits sums differ, and two such sweeps gained nothing (docs/decisions/0014). */
    .abreast = sizeof(elem) == sizeof(real) ? K(js_probs_abreast) : NULL,
    .most_abreast = KLCE_SEGMENT,
};

#undef JS_CLOSE
#undef JS_LEAST
#undef JS_NEGLIGIBLE
