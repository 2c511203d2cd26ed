/* logsumexp with factors: log|sum b exp(x)| and the sign of the sum.
 *
 * A term's size is exp(z), z = x + log|b|, in float64.  The largest stays out of the sum, as in
 * expsum.h, and the others are summed by sign, so that the two sums are each without cancellation;
 * they meet once, in 1 + (those of the largest's sign - the rest).  Classes with b = 0 do not
 * count.
 */

/* The largest z, the sign of its b, and the sums of the other exp(z - TOP) by sign. */
enum { K(TOP), K(TOP_SIGN), K(PLUS), K(MINUS) };
LAST_FIELD(MINUS);

/* From another largest, which joins the sums unless there was none. */
KLCE_INLINE void K(move_top)(const klce_call *call, K(lanes) *plus, K(lanes) *minus, double *state,
                             double top, double sign)
{
    double before = state[FIELD(TOP)];
    double factor = before == -INFINITY ? 0 : K(exp_of)(K(context)(call), before - top);
    K(scale_lanes)(plus, factor);
    K(scale_lanes)(minus, factor);
    state[FIELD(PLUS)] = state[FIELD(PLUS)] * factor + (state[FIELD(TOP_SIGN)] > 0 ? factor : 0);
    state[FIELD(MINUS)] = state[FIELD(MINUS)] * factor + (state[FIELD(TOP_SIGN)] < 0 ? factor : 0);
    state[FIELD(TOP)] = top;
    state[FIELD(TOP_SIGN)] = sign;
}

static void K(logsumexp_scaled_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                      ptrdiff_t high, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    const elem *x = K(row_in)(call, 0, row), *b = K(row_in)(call, 1, row);
    K(lanes) plus = K(no_lanes)(), minus = K(no_lanes)();
    K(v) group[VECTORS];
    v_f64 wide[DOUBLES], factor[DOUBLES], plus_sum[DOUBLES], minus_sum[DOUBLES], zero = set_f64(0);
    double z[8 * LANES]; /* of FLUSH classes */
    state[FIELD(TOP)] = -INFINITY;
    state[FIELD(TOP_SIGN)] = state[FIELD(PLUS)] = state[FIELD(MINUS)] = 0;
    for (ptrdiff_t start = low; start < high; start += FLUSH) {
        ptrdiff_t length = KLCE_LESSER(FLUSH, high - start);
        v_f64 most = set_f64(-INFINITY);
        for (ptrdiff_t j = 0; j < length; j += LANES) {
            K(load_group)(x + start + j, length - j, (real)-INFINITY, group);
            K(widen_group)(group, wide);
            K(load_group)(b + start + j, length - j, 0, group);
            K(widen_group)(group, factor);
            for (int v = 0; v < DOUBLES; v++) {
                v_f64 term = wide[v] + log_f64(max_f64(factor[v], -factor[v]));
                term = select_f64(eq_f64(factor[v], zero), set_f64(-INFINITY), term);
                most = max_f64(term, most);
                store_f64(z + j + v * KLCE_WIDTH_f64, term);
            }
        }
        double top = hmax_f64(most);
        if (top > state[FIELD(TOP)]) {
            ptrdiff_t k = 0;
            while (z[k] != top)
                k++;
            K(move_top)(call, &plus, &minus, state, top, K(value)(b[start + k]) > 0 ? 1 : -1);
            z[k] = -INFINITY;
        }
        v_f64 is_top = set_f64(state[FIELD(TOP)]);
        v_f64 base = select_f64(eq_f64(is_top, set_f64(-INFINITY)), zero, is_top);
        for (int v = 0; v < DOUBLES; v++)
            plus_sum[v] = minus_sum[v] = zero;
        for (ptrdiff_t j = 0; j < length; j += LANES) {
            K(load_group)(b + start + j, length - j, 0, group);
            K(widen_group)(group, factor);
            for (int v = 0; v < DOUBLES; v++) {
                v_f64 term = load_f64(z + j + v * KLCE_WIDTH_f64);
                /* inf - inf, too, is 0 here. */
                v_f64 d = select_f64(eq_f64(term, base), zero, term - base);
                v_f64 e = exp_f64(&c->f, d, 1);
                e = select_f64(eq_f64(term, set_f64(-INFINITY)), zero, e);
                m_f64 positive = lt_f64(zero, factor[v]);
                plus_sum[v] = plus_sum[v] + select_f64(positive, e, zero);
                minus_sum[v] = minus_sum[v] + select_f64(positive, zero, e);
            }
        }
        K(add_wide)(&plus, plus_sum);
        K(add_wide)(&minus, minus_sum);
    }
    state[FIELD(PLUS)] += K(total)(&plus);
    state[FIELD(MINUS)] += K(total)(&minus);
}

static void K(logsumexp_scaled_merge)(const klce_call *call, double *into, const double *from)
{
    enum { M = FIELD(TOP), S = FIELD(TOP_SIGN), P = FIELD(PLUS), N = FIELD(MINUS) };
    int from_wins = from[M] > into[M];
    const double *low = from_wins ? into : from, *high = from_wins ? from : into;
    /* A side without terms has sums of 0, or nan. */
    double factor = low[M] == -INFINITY ? 0 : 1;
    if (low[M] < high[M])
        factor *= K(exp_of)(K(context)(call), low[M] - high[M]);
    double plus = high[P] + (low[P] * factor + (low[S] > 0 ? factor : 0));
    double minus = high[N] + (low[N] * factor + (low[S] < 0 ? factor : 0));
    double top = high[M], sign = high[S];
    into[M] = top;
    into[S] = sign;
    into[P] = plus;
    into[N] = minus;
}

static void K(logsumexp_scaled_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                       double *state)
{
    int any_sign = *(const int64_t *)call->arg[2] != 0;
    double result[KLCE_TILE], signs[KLCE_TILE];
    v_f64 zero = set_f64(0), one = set_f64(1), infinite = set_f64(INFINITY), none = set_f64(NAN);
    EACH_STATE(i, count)
    {
        v_f64 top = K(state)(state, K(TOP), i), own = K(state)(state, K(TOP_SIGN), i);
        v_f64 plus = K(state)(state, K(PLUS), i), minus = K(state)(state, K(MINUS), i);
        m_f64 is_positive = lt_f64(zero, own);
        v_f64 with = select_f64(is_positive, plus, minus), valid = plus + minus;
        v_f64 against = select_f64(is_positive, minus, plus);
        /* 1 + rest: as 1 plus something from -1 up, so that it keeps its digits near 1; where the
         * largest cancels, by what the terms of its sign add to what is left of it. */
        v_f64 rest = with - against, left = (one - against) + with, size = max_f64(left, -left);
        m_f64 flips = lt_f64(left, zero), cancels = lt_f64(size, set_f64(0.5));
        v_f64 log = log1p_f64(select_f64(flips, -(set_f64(2) + rest), rest));
        log = select_f64(cancels, log_f64(size), log);
        log = select_f64(eq_f64(left, zero), -infinite, log) + top;
        v_f64 sign = select_f64(flips, -own, select_f64(eq_f64(left, zero), zero, own));
        /* Infinite terms of both signs. */
        m_f64 undefined = and_f64(eq_f64(top, infinite), lt_f64(zero, against));
        log = select_f64(eq_f64(top, -infinite), top, log);
        undefined = or_f64(undefined, not_f64(eq_f64(valid, valid)));
        sign = select_f64(undefined, none, sign);
        m_f64 refused = any_sign ? undefined : or_f64(undefined, lt_f64(sign, zero));
        store_f64(result + i, select_f64(refused, none, log));
        store_f64(signs + i, sign);
    }
    K(put)(call, 3, row, count, result);
    K(put)(call, 4, row, count, signs);
}

static const klce_kernel K(logsumexp_scaled_kernel) = {
    .prepare = K(logsumexp_prepare),
    .pass = {{K(logsumexp_scaled_sweep), SHARED(logsumexp_scaled_merge),
              SHARED(logsumexp_scaled_finish)}},
};
