/* KL divergence of logits: with w ~ p and d = log(q/p) as logit_pairs.h has them,
 *     A = sum w,  terms = sum w (exp(d) - 1 - d) = sum q - w - w d,  drift = sum q - w,
 *     KL = terms/A - (s - log1p(s)),  s = drift/A.
 * The terms are never negative and small where the rows are near; the drift is what rounding of the
 * offset left, and its effect is taken out.
 *
 * Unlike rows need no second sweep.  With L the log-sum-exp,
 *     KL = sum p (x - y)/T - (L(x) - L(y)),
 * whose first sum the sweep of x takes along.  What rounding makes of it is some units of
 * sum p |x - y|/T, and that is at most KL + |L(x) - L(y)| + 2/e: it exceeds its own mean by twice
 * the sum of p log(q/p) where that is positive, and t is at most exp(t)/e, with sum p (q/p) = 1.
 * So where KL is a fair share of it, the digits are there.  Rows of few classes, whose sums may be
 * small by themselves, take distances about that of their maxima and sum their sizes as well.
 */

/* y's fields between the first sweep and the relation, behind x's. */
enum { K(KL_Q) = K(CENTRE) + 1 };
_Static_assert(FIELD(KL_Q) + FIELD(REF) < FIELD(PLAIN_KL), "what stays stands behind both");

static void K(kl_logits_normalizers)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                     ptrdiff_t high, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    const elem *x = K(row_in)(call, 0, row), *y = K(row_in)(call, 1, row);
    int few = call->n <= FEW, unlike = !few && K(seem_unlike)(c, x, y);
    if (!few && !unlike && K(sum_exp_near)(c, x + low, y + low, high - low, state, K(KL_Q))) {
        state[FIELD(APART)] = NAN;
        return;
    }
    state[FIELD(NEAR_TERMS)] = NAN;
    K(sum_exp)(c, y + low, high - low, state + FIELD(KL_Q));
    if (unlike) {
        K(sum_exp_and_apart)(c, x + low, y + low, high - low, state); /* y is in cache */
        return;
    }
    K(sum_exp)(c, x + low, high - low, state);
    state[FIELD(APART)] = NAN;
    if (few && call->n >= K(APART_CLASSES))
        K(sum_apart)(c, x, y, state[FIELD(KL_Q) + FIELD(MAX)], call->n, state);
}

static void K(kl_logits_merge)(const klce_call *call, double *into, const double *from)
{
    K(near_join)(K(context)(call), into, from);
    K(apart_join)(K(context)(call), into, from, 0);
    K(expsum_merge)(call, into + FIELD(KL_Q), from + FIELD(KL_Q));
}

/* The mean of x - y, before the rows are related. */
KLCE_INLINE v_f64 K(mean_apart)(const K(expsum_context) *c, const double *state, int i)
{
    return K(at_maximum)(c, state, K(APART), i) / (set_f64(1) + K(rest_of)(c, state, i));
}

/* KL from that, once they are; nan where its size, bounded as said above, leaves it few digits. */
KLCE_INLINE v_f64 K(plain_kl)(const K(expsum_context) *c, v_f64 mean, v_f64 offset, v_f64 low)
{
    v_f64 one = set_f64(1), inverse = set_f64(1 / c->t), kl = ((mean + offset) + low) * inverse;
    return K(with_digits)(kl, kl + (one + max_f64(offset, -offset) * inverse));
}

/* Of rows of few classes, about their centre: with m the maxima and a = (x - y) - centre,
 *     KL = sum p a/T + (log1p(rest(y)) - log1p(rest(x))) - ((m(x) - m(y)) - centre)/T.
 * A rest is right to 2^-26 or so, a quarter of what the terms of a sum are, and of log1p(rest)
 * the share rest/(1 + rest) of that shows.  Where all |a| <= 0.32 T no row has the digits: KL
 * is at most the sum of p (exp(-a/T) - 1 + a/T), which is below 0.18 of that of p |a|/T.  (Below
 * 2^-200, where sums may be subnormal, none has them.) */
KLCE_INLINE v_f64 K(plain_kl_of_few)(const K(expsum_context) *c, const double *state, int i)
{
    const double *other = state + FIELD(KL_Q);
    v_f64 one = set_f64(1), inverse = set_f64(1 / c->t), quarter = set_f64(0.25);
    v_f64 rest = K(rest_of)(c, state, i), other_rest = K(rest_of)(c, other, i);
    v_f64 share = one / (one + rest);
    twofold maxima = two_sum(K(state)(state, K(MAX), i), -K(state)(other, K(MAX), i));
    v_f64 left = (maxima.high - K(state)(state, K(CENTRE), i)) + maxima.low;
    v_f64 mean = (K(at_maximum)(c, state, K(APART), i) * share - left) * inverse;
    v_f64 size = K(at_maximum)(c, state, K(SIZES), i) * share * inverse + set_f64(0x1p-200);
    v_f64 kl = mean + K(log1p_for)((other_rest - rest) * share);
    return K(with_digits)(kl, fma_f64(rest * share + min_f64(other_rest, one), quarter, size));
}

/* PLAIN_KL, and what the second sweep needs. */
static void K(kl_logits_relate)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *state)
{
    const K(expsum_context) *c = K(context)(call);
    (void)row;
    EACH_STATE(i, count)
    {
        v_f64 mean = K(mean_apart)(c, state, i);
        v_f64 of_few = K(plain_kl_of_few)(c, state, i), near = K(near_kl)(c, state, i);
        K(relate_logits)(c, state, state + FIELD(KL_Q), i);
        v_f64 plain =
            K(plain_kl)(c, mean, K(state)(state, K(OFFSET), i), K(state)(state, K(OFFSET_LOW), i));
        plain = select_f64(eq_f64(near, near), near, plain);
        store_f64(state + FIELD(PLAIN_KL) + i, call->n <= FEW ? of_few : plain);
    }
}

static void K(kl_logits_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                               double *state)
{
    double sums[K(PAIR_SUMS)] = {0};
    if (isnan(state[FIELD(PLAIN_KL)]))
        K(sum_pairs)(call, row, low, high, K(KL_SUMS), state, sums);
    state[FIELD(TERMS)] = sums[K(SUM_KL)];
    state[FIELD(DRIFT)] = sums[K(SUM_DRIFT)];
}

static void K(kl_logits_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *state)
{
    double result[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 scale = K(of_probabilities)(K(context)(call), state, i);
        v_f64 s = K(state)(state, K(DRIFT), i) * scale, plain = K(state)(state, K(PLAIN_KL), i);
        v_f64 kl = K(state)(state, K(TERMS), i) * scale - log1p_gap_f64(s);
        kl = kl + K(state)(state, K(OFFSET), i) * set_f64(0); /* nan: no distribution */
        kl = max_f64(set_f64(0), kl) + set_f64(0);            /* of -0, 0 */
        store_f64(result + i, select_f64(eq_f64(plain, plain), plain, kl));
    }
    K(put)(call, 3, row, count, result);
}

static void K(kl_logits_few)(const klce_call *call, ptrdiff_t row)
{
    const K(expsum_context) *c = K(context)(call);
    double state[KLCE_FIELDS * KLCE_TILE], *plain = state + FIELD(PLAIN_KL);
    K(tile) x, y;
    int lacks = 0;
    K(sum_exp_few)(call, 1, row, &y, state + FIELD(KL_Q));
    K(sum_exp_and_apart_few)(call, row, &x, &y, state + FIELD(KL_Q) + FIELD(MAX), state);
    EACH_STATE(i, KLCE_TILE)
    {
        v_f64 kl = K(state)(state, K(APART), i);
        if (any_f64(eq_f64(kl, kl))) /* not where all are near */
            kl = K(plain_kl_of_few)(c, state, i);
        store_f64(plain + i, kl);
        lacks |= any_f64(not_f64(eq_f64(kl, kl)));
    }
    if (!lacks) {
        K(put)(call, 3, row, KLCE_TILE, plain);
        return;
    }
    EACH_STATE(i, KLCE_TILE) K(relate_logits)(c, state, state + FIELD(KL_Q), i);
    double *const sums[K(PAIR_SUMS)] = {[K(SUM_KL)] = state + FIELD(TERMS),
                                        [K(SUM_DRIFT)] = state + FIELD(DRIFT)};
    K(sum_pairs_few)(call, &x, &y, K(KL_SUMS), state, sums);
    K(kl_logits_finish)(call, row, KLCE_TILE, state);
}

static const klce_kernel K(kl_logits_kernel);

/* From the sums of unlike rows on. */
static void K(kl_logits_of_unlike)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                   double *state)
{
    for (ptrdiff_t i = 0; i < count; i++)
        state[FIELD(NEAR_TERMS) + i] = NAN;
    K(finish_passes)(call, &K(kl_logits_kernel), row, count, state);
}

/* Rows that seem unlike, as far as they follow one another. */
static ptrdiff_t K(kl_logits_pipelined)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    enum { MOST = 64 }; /* so that what is looked at stays in cache */
    ptrdiff_t n = call->n, end = low;
    if (n <= FEW || n > BLOCK)
        return low;
    while (end < KLCE_LESSER(low + MOST, high) &&
           K(seem_unlike)(K(context)(call), K(row_in)(call, 0, end), K(row_in)(call, 1, end)))
        end++;
    return K(expsum_rows)(call, low, end, FIELD(KL_Q), 1, 0, K(kl_logits_of_unlike));
}

static const klce_kernel K(kl_logits_kernel) = {
    .prepare = K(temperature_prepare),
    .pass = {{K(kl_logits_normalizers), SHARED(kl_logits_merge), SHARED(kl_logits_relate)},
             {K(kl_logits_sweep), SHARED(divergence_add), SHARED(kl_logits_finish)}},
    .few = TILE_OF(kl_logits_few),
    .pipelined = K(kl_logits_pipelined),
};
