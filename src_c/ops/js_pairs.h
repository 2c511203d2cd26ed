/* Jensen-Shannon divergence.  With v = (q - p)/(q + p) a class gives (p + q)/4 times
 *     (1 - v) log(1 - v) + (1 + v) log(1 + v) = v^2 + v^4/6 + v^6/15 + ...
 * which is even in v and never negative: nothing cancels where p and q are near.  From |v| = 1/2 on
 * it is u log(u) + (2 - u) log(2 - u), u = 1 - |v|: twice the smaller's share of both.  A drift s
 * has added s^2/8.
 */

/* The even function over its square, for squares up to 1/4, to 2^-57 of it (tools/minimax.py). */
KLCE_INLINE v_f64 K(js_even)(v_f64 square)
{
    static const double series[] = {
        1.00000000000000001,    0.16666666666665821,    0.0666666666685112505,
        0.0357142855554294582,  0.0222222293305335371,  0.0151513262334430965,
        0.0109922220127132823,  0.0082969699436507288,  0.00681535104461610133,
        0.00380967504623780145, 0.00931238665584147739, -0.00688382661589606167,
        0.0144649182597525849};
    return series_f64(series, (int)(sizeof series / sizeof *series) - 1, square, square * square);
}

/* (2 - u) log(2 - u) for u from 0 to 1/2, to 2^-58 of its sum with u log(u). */
KLCE_INLINE v_f64 K(js_of_larger)(v_f64 u)
{
    static const double series[] = {
        1.38629436111989061,       -1.69314718055994224,     0.24999999999964889,
        0.0416666666828044379,     0.0104166662750421763,    0.00312500573616664651,
        0.00104161198697069375,    0.000372378257310126468,  0.000137909556956777888,
        0.0000593118810809051419,  0.0000105991396582618418, 0.000025240826218696186,
        -0.0000113268012571860952, 8.68721085890674881e-6};
    return series_f64(series, (int)(sizeof series / sizeof *series) - 1, u, u * u);
}

/* Four times the class's part. */
KLCE_INLINE v_f64 K(js_pair_term)(const K(share) *p, const K(share) *q, v_f64 d, K(forms) form,
                                  int normalize)
{
    v_f64 sum = p->p.high + q->p.high;
    v_f64 inverse = set_f64(1) / max_f64(set_f64(0x1p-1022), sum);
    v_f64 v = d * inverse, square = v * v, term = d * v * K(js_even)(square);
    m_f64 far = lt_f64(set_f64(0.25), square);
    if (any_f64(far)) {
        /* At 2^-100 u log(u) adds nothing that shows. */
        v_f64 u = min_f64(p->p.high, q->p.high) * (inverse + inverse);
        u = max_f64(u, set_f64(0x1p-100));
        term = select_f64(far, sum * fma_f64(u, log_term_f64(u), K(js_of_larger)(u)), term);
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
        normalized = min_f64(set_f64(KLCE_LN2_f64), normalized);
        store_f64(result + i, normalize ? normalized : js);
    }
    K(put)(call, 5, row, count, result);
}

PAIR_KERNEL(js_probs_logits, 0, 1, js_pair_term, js_pair_finish)
