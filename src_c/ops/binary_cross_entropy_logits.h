/* binary cross-entropy of logits, elementwise: q = 1/(1 + exp(-x)), so -log q and -log(1 - q) are
 * max(-x, 0) and max(x, 0) plus log1p(exp(-|x|)): a confident logit keeps its loss. */

/* log1p(exp(-size)), right down to the subnormal numbers. */
KLCE_INLINE K(v) K(log1p_of_exp)(const K(expsum_context) *c, const K(measure) *from, K(v) size)
{
    K(v) lowest = K(set)(KLCE_REAL_IS_F64 ? -746 : -104), z = -size; /* exp rounds to 0 there */
    K(exp_pair) pair = K(exp_pair_of)(&c->e, K(max)(lowest, z), from->magic);
    K(v) e = K(fma)(pair.t, pair.scale, pair.scale);
    e = K(select)(K(lt)(z, lowest), K(set)(0), e) * K(set)((real)UNBOOST);
    return K(log1p)(e);
}

static void K(binary_cross_entropy_logits_rows)(const klce_call *call, ptrdiff_t low,
                                                ptrdiff_t high)
{
    const K(expsum_context) *c = K(context)(call);
    K(measure) from = K(measure_from)(c, 0, 0, BOOST, FLOOR);
    K(v) x[VECTORS], y[VECTORS], weight[VECTORS], positive[VECTORS], zero = K(set)(0);
    for (ptrdiff_t row = low; row < high; row++)
        for (ptrdiff_t i = 0; i < call->n; i += LANES) {
            ptrdiff_t left = call->n - i;
            K(load_group)(K(row_in)(call, 0, row) + i, left, 0, x);
            K(load_group)(K(row_in)(call, 1, row) + i, left, 0, y);
            K(load_group)(K(row_in)(call, 2, row) + i, left, 0, weight);
            K(load_group)(K(row_in)(call, 3, row) + i, left, 0, positive);
            EACH_VECTOR(v)
            {
                K(v) both = K(log1p_of_exp)(c, &from, K(max)(x[v], -x[v]));
                K(v) if_true = K(max)(zero, -x[v]) + both, if_false = K(max)(zero, x[v]) + both;
                x[v] = K(binary_loss)(if_true, if_false, y[v], weight[v], positive[v]);
            }
            K(store_group)(K(row_out)(call, 4, row) + i, left, x);
        }
}

static const klce_kernel K(binary_cross_entropy_logits_kernel) = {
    .prepare = K(unit_prepare),
    .rows = K(binary_cross_entropy_logits_rows),
};
