/* cross_entropy against a class index: (max - x[target])/T + log1p(rest), plus z_loss * lse^2. */

KLCE_INLINE void K(cross_entropy_at)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                     const double *state, const K(labels) *labels)
{
    const K(expsum_context) *c = K(context)(call);
    double result[KLCE_TILE];
    v_f64 inverse = set_f64(1 / c->t), z_loss = set_f64(*(const double *)call->arg[4]);
    int with_z_loss = *(const double *)call->arg[4] != 0;
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i);
        /* An infinite maximum leaves no distribution: inf - inf is nan. */
        v_f64 log = K(log_of_rest)(c, state, i) + (max - max);
        v_f64 loss = (max - load_f64(labels->value + i)) * inverse + log;
        if (with_z_loss) {
            v_f64 lse = max * inverse + log;
            loss = loss + z_loss * lse * lse;
        }
        m_f64 ignored = eq_f64(load_f64(labels->counted + i), set_f64(0));
        store_f64(result + i, select_f64(ignored, set_f64(0), loss));
    }
    K(put)(call, 5, row, count, result);
}

static void K(cross_entropy_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                    double *state)
{
    K(labels) labels = {.value = {0}};
    K(read_at_labels)(call, row, count, &labels);
    K(cross_entropy_at)(call, row, count, state, &labels);
}

static void K(cross_entropy_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(labels) labels;
    K(tile) tile;
    K(read_labels)(call, row, KLCE_TILE, &labels);
    K(sum_exp_at_labels_few)(call, row, &tile, state, &labels);
    K(cross_entropy_at)(call, row, KLCE_TILE, state, &labels);
}

static ptrdiff_t K(cross_entropy_pipelined)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    return K(sum_exp_rows)(call, low, high, K(cross_entropy_finish));
}

static ptrdiff_t K(cross_entropy_abreast)(const klce_call *call, ptrdiff_t low, ptrdiff_t high,
                                          void *scratch)
{
    return K(sum_exp_blocks)(call, low, high, scratch, K(cross_entropy_finish));
}

static const klce_kernel K(cross_entropy_kernel) = {
    .prepare = K(temperature_prepare),
    .pass = {{K(logsumexp_sweep), SHARED(expsum_merge), K(cross_entropy_finish)}},
    .few = TILE_OF(cross_entropy_few),
    .pipelined = K(cross_entropy_pipelined),
    .abreast = K(cross_entropy_abreast),
    .most_abreast = BLOCK,
    .panels = 1,
};
