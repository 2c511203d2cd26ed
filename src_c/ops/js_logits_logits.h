/* js_logits_logits: JS divergence of logits, which at one temperature come down to w ~ p, q and
 * d = log(q/p) as logit_pairs.h has them, in terms that pair_terms.h sums.  Unlike rows are swept
 * as unlike.h says, before others are so.  Log-probabilities that are not to be normalised, and
 * logits at two temperatures, take the passes of pairs.h.
 */

PAIR_PASSES(js_logits_logits, 1, 1, js_pair_term)
PAIR_FEW(js_logits_logits, 1, 1, js_pair_term, js_pair_finish)

/* A drift s has added s^2/8.  It is at most 1e-7 (1e-16) and shows below 2^-27 (2^-56) alone; there
 * the sum of w d over near classes, within some 10 JS of that of q - w, is good enough. */
static void K(js_logits_plain_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                      double *state)
{
    double result[KLCE_TILE];
    v_f64 most = set_f64(KLCE_LN2_f64), zero = set_f64(0);
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
    double sums[K(PAIR_SUMS)];
    if (state[FIELD(UNLIKE)] != 0)
        return;
    if (!K(js_logits_plain)(call)) {
        K(js_logits_logits_sweep)(call, row, low, high, state);
        return;
    }
    K(sum_pairs)(call, row, low, high, K(JS_SUMS), state, sums);
    state[FIELD(TERMS)] = sums[K(SUM_JS)];
    state[FIELD(DRIFT)] = sums[K(SUM_DRIFT)];
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
    double *const sums[K(PAIR_SUMS)] = {[K(SUM_JS)] = state + FIELD(TERMS),
                                        [K(SUM_DRIFT)] = state + FIELD(DRIFT)};
    K(sum_pairs_few)(call, &x, &y, K(JS_SUMS), state, sums);
    K(js_logits_plain_finish)(call, row, KLCE_TILE, state);
}

static const klce_kernel K(js_logits_logits_kernel);

/* From the sums of both rows on. */
static void K(js_logits_of_sums)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                 double *state)
{
    K(finish_passes)(call, &K(js_logits_logits_kernel), row, count, state);
}

static ptrdiff_t K(js_logits_pipelined)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    if (!K(js_logits_plain)(call))
        return low;
    return K(expsum_rows)(call, low, high, FIELD(OTHER), 0, 0, K(js_logits_of_sums));
}

static const klce_kernel K(js_logits_logits_kernel) = {
    .prepare = K(pairs_prepare),
    .pass = {{K(js_logits_logits_normalizers), SHARED(js_logits_logits_merge), K(js_logits_relate)},
             {K(js_logits_sweep_unlike), SHARED(divergence_add), SHARED(js_logits_look)},
             {K(js_logits_sweep), SHARED(add_of_others), SHARED(js_logits_finish)}},
    .few = TILE_OF(js_logits_few),
    .pipelined = K(js_logits_pipelined),
};
