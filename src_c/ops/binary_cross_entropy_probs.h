/* binary cross-entropy of probabilities, elementwise: w (v y (-log q) + (1 - y) (-log1p(-q))), v
 * the weight of the positive class.  A term of coefficient 0 is 0, also where its logarithm is
 * infinite; an element of weight 0 is 0, whatever it holds; a q or y outside [0, 1] gives nan. */

KLCE_INLINE K(m) K(is_probability)(K(v) p)
{
    return K (and)(K(not)(K(lt)(p, K(set)(0))), K(not)(K(lt)(K(set)(1), p)));
}

/* From what there is to pay if the target is 1, and if it is 0: terms of one sign. */
KLCE_INLINE K(v) K(binary_loss)(K(v) if_true, K(v) if_false, K(v) y, K(v) weight, K(v) positive)
{
    K(v) zero = K(set)(0);
    K(v) loss = K(weigh)(positive * y, if_true) + K(weigh)(K(set)(1) - y, if_false);
    loss = K(select)(K(is_probability)(y), loss, K(set)((real)NAN));
    return K(select)(K(eq)(weight, zero), zero, weight * loss);
}

static void K(binary_cross_entropy_probs_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(v) q[VECTORS], y[VECTORS], weight[VECTORS], positive[VECTORS];
    K(v) zero = K(set)(0), one = K(set)(1), infinite = K(set)((real)INFINITY);
    for (ptrdiff_t row = low; row < high; row++)
        for (ptrdiff_t i = 0; i < call->n; i += LANES) {
            ptrdiff_t left = call->n - i;
            K(load_group)(K(row_in)(call, 0, row) + i, left, 0, q);
            K(load_group)(K(row_in)(call, 1, row) + i, left, 0, y);
            K(load_group)(K(row_in)(call, 2, row) + i, left, 0, weight);
            K(load_group)(K(row_in)(call, 3, row) + i, left, 0, positive);
            EACH_VECTOR(v)
            {
                K(v) p = K(select)(K(is_probability)(q[v]), q[v], K(set)((real)NAN));
                K(v) if_true = zero - K(log)(p);
                K(v) if_false = K(select)(K(eq)(p, one), infinite, zero - K(log1p)(-p));
                q[v] = K(binary_loss)(if_true, if_false, y[v], weight[v], positive[v]);
            }
            K(store_group)(K(row_out)(call, 4, row) + i, left, q);
        }
}

static const klce_kernel K(binary_cross_entropy_probs_kernel) = {
    .rows = K(binary_cross_entropy_probs_rows),
};
