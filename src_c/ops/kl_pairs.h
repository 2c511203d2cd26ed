/* KL divergence of two forms, or of logits at two temperatures: sum of p (u - log1p(u)) with
 * u = (q - p)/p, less s - log1p(s), s the drift, as in kl_probs.h; or with normalize = 0 of
 * p log(p/q).
 */

KLCE_INLINE v_f64 K(kl_pair_term)(const K(share) *p, const K(share) *q, v_f64 d, K(forms) form,
                                  int normalize)
{
    v_f64 zero = set_f64(0), infinite = set_f64(INFINITY), tiny = set_f64(0x1p-960);
    v_f64 u = d / max_f64(tiny, p->p.high);
    m_f64 far = lt_f64(u, set_f64(-0.5)); /* 1 + u has lost the quotient */
    v_f64 result = normalize ? log1p_gap_f64(u) : zero - log1p_f64(u);
    if (any_f64(far)) {
        v_f64 log = K(log_of_share)(q, form.q) - K(log_of_share)(p, form.p);
        result = select_f64(far, normalize ? u - log : zero - log, result);
    }
    m_f64 no_p = lt_f64(p->p.high, tiny);
    v_f64 term = select_f64(no_p, normalize ? d : d * zero, p->p.high * result);
    /* A q of 0 is not one that underflows, and no more is a p. */
    m_f64 some_p = form.p ? lt_f64(-infinite, p->log) : lt_f64(zero, p->from);
    m_f64 no_q = form.q ? eq_f64(q->log, -infinite) : eq_f64(q->from, zero);
    return term + select_f64(and_f64(some_p, no_q), infinite, zero);
}

static void K(kl_pair_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    int normalize = K(pair_normalizes)(call);
    double result[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 kl = K(pair_total)(state, i), drift = K(state)(state, K(DRIFT), i);
        /* Rounding may leave less than nothing. */
        v_f64 normalized = max_f64(set_f64(0), kl - log1p_gap_f64(drift));
        store_f64(result + i, normalize ? normalized : kl);
    }
    K(put)(call, 5, row, count, result);
}

PAIR_KERNEL(kl_probs_logits, 0, 1, kl_pair_term, kl_pair_finish)
PAIR_KERNEL(kl_logits_probs, 1, 0, kl_pair_term, kl_pair_finish)
PAIR_KERNEL(kl_logits_logits, 1, 1, kl_pair_term, kl_pair_finish)
