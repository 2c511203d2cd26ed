/* Jensen-Shannon divergence.  With v = (q - p)/(q + p) a class gives (p + q)/4 times
 *     (1 - v) log(1 - v) + (1 + v) log(1 + v) = v^2 + v^4/6 + v^6/15 + ...
 * which is even in v and never negative: nothing cancels where p and q are near.  Beyond v^2 = 0.08
 * the logarithms themselves serve, of 2p/(p + q) and 2q/(p + q).  A drift s has added s^2/8.
 */

#define JS_PAIRS_NEAR 0.08

/* Four times the class's part. */
KLCE_INLINE v_f64 K(js_pair_term)(const K(share) *p, const K(share) *q, v_f64 d, K(forms) form,
                                  int normalize)
{
    /* 1/(k (2k - 1)), up to what 0.08^(k - 1) leaves of a double. */
    static const double series[] = {1 / 325.0, 1 / 276.0, 1 / 231.0, 1 / 190.0, 1 / 153.0,
                                    1 / 120.0, 1 / 91.0,  1 / 66.0,  1 / 45.0,  1 / 28.0,
                                    1 / 15.0,  1 / 6.0,   1.0};
    v_f64 zero = set_f64(0), two = set_f64(2);
    v_f64 sum = max_f64(set_f64(0x1p-1022), p->p.high + q->p.high);
    v_f64 v = d / sum, square = v * v, even = set_f64(series[0]);
    for (int k = 1; k < 13; k++)
        even = fma_f64(even, square, set_f64(series[k]));
    v_f64 term = d * v * even;
    m_f64 far = lt_f64(set_f64(JS_PAIRS_NEAR), square);
    if (any_f64(far)) {
        v_f64 of_p = p->p.high * log_f64(two * (p->p.high / sum));
        v_f64 of_q = q->p.high * log_f64(two * (q->p.high / sum));
        of_p = select_f64(eq_f64(p->p.high, zero), zero, of_p);
        of_q = select_f64(eq_f64(q->p.high, zero), zero, of_q);
        term = select_f64(far, two * (of_p + of_q), term);
    }
    (void)form, (void)normalize;
    return term;
}

static void K(js_pair_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    int normalize = K(pair_normalizes)(call);
    double result[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 js = K(pair_total)(state, i) * set_f64(0.25);
        v_f64 drift = K(state)(state, K(DRIFT), i);
        /* Rounding may leave less than nothing, or more than log 2. */
        v_f64 normalized = max_f64(set_f64(0), js - drift * drift * set_f64(0.125));
        normalized = min_f64(set_f64(0x1.62e42fefa39efp-1), normalized);
        store_f64(result + i, normalize ? normalized : js);
    }
    K(put)(call, 5, row, count, result);
}

PAIR_KERNEL(js_probs_logits, 0, 1, js_pair_term, js_pair_finish)

#undef JS_PAIRS_NEAR
