/* entropy of log-probabilities as plain sums, -sum exp(x) x = exp(max) * (sum w (max - x) - max
 * sum w): both terms are positive where max < 0, as for log-probabilities it is. */

static void K(entropy_log_probs_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                        double *state)
{
    const K(expsum_context) *c = K(context)(call);
    double result[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i), sum = set_f64(1) + K(rest_of)(c, state, i);
        v_f64 all = exp_f64(&c->f, max, 1) * (K(weighted_of)(c, state, i) - max * sum);
        /* All -inf: every term is 0 log 0.  A maximum of inf: -exp(inf) inf. */
        all = select_f64(eq_f64(max, set_f64(-INFINITY)), sum - set_f64(1), all);
        all = select_f64(eq_f64(max, set_f64(INFINITY)), -max * sum, all);
        store_f64(result + i, all);
    }
    K(put)(call, 1, row, count, result);
}

static void K(entropy_log_probs_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(tile) tile;
    K(sum_exp_and_weighted_few)(call, 0, row, &tile, state);
    K(entropy_log_probs_finish)(call, row, KLCE_TILE, state);
}

static const klce_kernel K(entropy_log_probs_kernel) = {
    .prepare = K(unit_prepare),
    .pass = {{K(entropy_logits_sweep), SHARED(entropy_logits_merge),
              SHARED(entropy_log_probs_finish)}},
    .few = TILE_OF(entropy_log_probs_few),
};
