/* score: the loss at the label, the entropy, logsumexp and the first index of the maximum, from
 * one read of the row (the search for the index finds it in cache). */

static void K(score_prepare)(klce_call *call) { K(expsum_prepare)(call, 1); }

/* The first x equal to the maximum, or the first nan if there is one; -1 for no classes. */
KLCE_INLINE int64_t K(argmax)(const elem *x, ptrdiff_t n, real max, int has_nan)
{
    if (!has_nan)
        return K(first_equal)(x, n, max);
    ptrdiff_t i = 0;
    while (!isnan(K(value)(x[i])))
        i++;
    return i;
}

static void K(score_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    double at_label[KLCE_TILE] = {0}, counted[KLCE_TILE] = {0};
    double nll[KLCE_TILE], entropy[KLCE_TILE], lse[KLCE_TILE];
    K(at_labels)(call, row, count, at_label, counted);
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i);
        v_f64 log = K(log_of_rest)(c, state, i);
        m_f64 ignored = eq_f64(load_f64(counted + i), set_f64(0));
        v_f64 loss = (max - load_f64(at_label + i)) + log + (max - max);
        store_f64(nll + i, select_f64(ignored, set_f64(0), loss));
        store_f64(entropy + i, K(entropy_of)(c, state, i));
        store_f64(lse + i, max + log);
    }
    K(put)(call, 3, row, count, nll);
    K(put)(call, 4, row, count, entropy);
    K(put)(call, 5, row, count, lse);
    for (ptrdiff_t i = 0; i < count; i++) {
        double rest = state[FIELD(REST) + i];
        *(int64_t *)(call->arg[6] + (row + i) * call->step[6]) = K(argmax)(
            K(row_in)(call, 0, row + i), call->n, (real)state[FIELD(MAX) + i], rest != rest);
    }
}

static void K(score_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(sum_exp_and_weighted_few)(call, 0, row, state);
    K(score_finish)(call, row, KLCE_TILE, state);
}

static const klce_kernel K(score_kernel) = {
    .prepare = K(score_prepare),
    .pass = {{K(entropy_logits_sweep), K(entropy_logits_merge), K(score_finish)}},
    .few = K(score_few),
};
