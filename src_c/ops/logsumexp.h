/* logsumexp: max + log1p(rest). */

static void K(logsumexp_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                               double *state)
{
    K(sum_exp)(K(context)(call), K(row_in)(call, 0, row) + low, high - low, state);
}

static void K(logsumexp_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *state)
{
    double result[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 log = K(log_of_rest)(K(context)(call), state, i);
        store_f64(result + i, K(state)(state, K(MAX), i) + log);
    }
    K(put)(call, 1, row, count, result);
}

static void K(logsumexp_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(tile) tile;
    K(sum_exp_few)(call, 0, row, &tile, state);
    K(logsumexp_finish)(call, row, KLCE_TILE, state);
}

static ptrdiff_t K(logsumexp_pipelined)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    return K(sum_exp_rows)(call, low, high, SHARED(logsumexp_finish));
}

static ptrdiff_t K(logsumexp_abreast)(const klce_call *call, ptrdiff_t low, ptrdiff_t high,
                                      void *scratch)
{
    return K(sum_exp_blocks)(call, low, high, scratch, SHARED(logsumexp_finish));
}

static const klce_kernel K(logsumexp_kernel) = {
    .prepare = K(unit_prepare),
    .pass = {{K(logsumexp_sweep), SHARED(expsum_merge), SHARED(logsumexp_finish)}},
    .few = TILE_OF(logsumexp_few),
    .pipelined = K(logsumexp_pipelined),
    .abreast = K(logsumexp_abreast),
    .most_abreast = BLOCK,
    .panels = 1,
};
