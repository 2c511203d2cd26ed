/* KL divergence of logits: with w ~ p and d = log(q/p) as logit_pairs.h has them,
 *     A = sum w,  terms = sum w (exp(d) - 1 - d) = sum q - w - w d,  drift = sum q - w,
 *     KL = terms/A - (s - log1p(s)),  s = drift/A.
 * The terms are never negative and small where the rows are near; the drift is what rounding of the
 * offset left, and its effect is taken out.
 */

/* q - w - w slope of a class that is far.  A p that does not count leaves q, but beside a q of 0 it
 * is infinite like any other. */
KLCE_INLINE K(v) K(kl_of_far)(K(v) w, K(v) less, K(v) slope, K(m) none)
{
    K(v) least = K(set)((real)-INFINITY), steep = K(set)(STEEPEST);
    K(v) low = K(select)(none, -steep, least);
    K(v) within = K(max)(low, K(min)(slope, steep)); /* of nan, the steepest */
    return K(select)(K(eq)(slope, least), -least, K(fma)(-within, w, less));
}

/* Of a class whose parts are known. */
KLCE_INLINE K(v) K(kl_of_pair)(const K(logit_pair) *pair)
{
    if (!pair->any_far)
        return pair->bend;
    K(v) far = K(kl_of_far)(pair->w, pair->q - pair->w, pair->slope, pair->no_p);
    return K(select)(pair->far, far, pair->bend);
}

KLCE_INLINE void K(kl_logits_term)(const K(expsum_context) *c, const K(pair_measure) *by, K(v) x,
                                   K(v) y, K(v) *term, K(v) *moved)
{
    K(logit_pair) pair = K(logit_pair_of)(c, by, x, y);
    *term = K(kl_of_pair)(&pair);
    *moved = pair.moved;
}

static void K(kl_logits_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                               double *state)
{
    K(logits_second)(call, K(kl_logits_term), row, low, high, state);
}

static void K(kl_logits_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *state)
{
    double result[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 scale = K(of_probabilities)(K(context)(call), state, i);
        v_f64 s = K(state)(state, K(DRIFT), i) * scale;
        v_f64 kl = K(state)(state, K(TERMS), i) * scale - log1p_gap_f64(s);
        kl = kl + K(state)(state, K(OFFSET), i) * set_f64(0);        /* nan: no distribution */
        store_f64(result + i, max_f64(set_f64(0), kl) + set_f64(0)); /* of -0, 0 */
    }
    K(put)(call, 3, row, count, result);
}

static void K(kl_logits_prepare)(klce_call *call)
{
    K(expsum_prepare)(call, *(const double *)call->arg[2]);
}

static void K(kl_logits_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(logits_few)(call, K(kl_logits_term), row, state);
    K(kl_logits_finish)(call, row, KLCE_TILE, state);
}

static const klce_kernel K(kl_logits_kernel) = {
    .prepare = K(kl_logits_prepare),
    .pass = {{K(logits_normalizers), SHARED(logits_merge), SHARED(logits_relate)},
             {K(kl_logits_sweep), SHARED(divergence_add), SHARED(kl_logits_finish)}},
    .few = TILE_OF(kl_logits_few),
};
