/* entropy of logits: with w = exp((x - max)/T), log sum w + sum w (max - x)/T / sum w: the first is
 * a log1p, the second has only positive terms. */

static void K(entropy_logits_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                    ptrdiff_t high, double *state)
{
    K(sum_exp_and_weighted)(K(context)(call), K(row_in)(call, 0, row) + low, high - low, state);
}

static void K(entropy_logits_merge)(const klce_call *call, double *into, const double *from)
{
    K(expsum_join)(K(context)(call), into, from, 1);
}

/* The sum over all of exp((x - max)/T) * (max - x). */
KLCE_INLINE v_f64 K(weighted_of)(const K(expsum_context) *c, const double *state, int i)
{
    return K(at_maximum)(c, state, K(WEIGHTED), i);
}

KLCE_INLINE v_f64 K(entropy_of)(const K(expsum_context) *c, const double *state, int i)
{
    v_f64 max = K(state)(state, K(MAX), i), rest = K(rest_of)(c, state, i);
    v_f64 log = K(log_of_rest)(c, state, i), t = set_f64(c->t), one = set_f64(1), mass = one + rest;
#if KLCE_REAL_IS_F64
    /* The quotient and the sum with what rounding took from each. */
    K(rounded_pair) weighted = K(at_maximum_pair)(c, state, K(WEIGHTED), i);
    v_f64 scale = mass * t, mean = weighted.high / scale;
    v_f64 scale_low = fma_f64(mass, t, -scale) + (rest - (mass - one)) * t;
    v_f64 left = fma_f64(-mean, scale, weighted.high) + fma_f64(-mean, scale_low, weighted.low);
    v_f64 sum = log + mean, part = sum - log;
    v_f64 h = sum + (((log - (sum - part)) + (mean - part)) + left / scale);
#else
    v_f64 h = log + K(weighted_of)(c, state, i) / (mass * t);
#endif
    /* An infinite maximum leaves no distribution: inf - inf is nan. */
    return h + (max - max);
}

static void K(entropy_logits_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                     double *state)
{
    double result[KLCE_TILE];
    EACH_STATE(i, count) store_f64(result + i, K(entropy_of)(K(context)(call), state, i));
    K(put)(call, 2, row, count, result);
}

static void K(entropy_logits_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(tile) tile;
    K(sum_exp_and_weighted_few)(call, 0, row, &tile, state);
    K(entropy_logits_finish)(call, row, KLCE_TILE, state);
}

static ptrdiff_t K(entropy_logits_pipelined)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    return K(sum_exp_and_weighted_rows)(call, low, high, SHARED(entropy_logits_finish));
}

static ptrdiff_t K(entropy_logits_abreast)(const klce_call *call, ptrdiff_t low, ptrdiff_t high,
                                           void *scratch)
{
    return K(sum_exp_and_weighted_blocks)(call, low, high, scratch, SHARED(entropy_logits_finish));
}

static const klce_kernel K(entropy_logits_kernel) = {
    .prepare = K(temperature_prepare),
    .pass = {{K(entropy_logits_sweep), SHARED(entropy_logits_merge),
              SHARED(entropy_logits_finish)}},
    .few = TILE_OF(entropy_logits_few),
    .pipelined = K(entropy_logits_pipelined),
    .abreast = K(entropy_logits_abreast),
    .most_abreast = BLOCK,
    .panels = 1,
};
