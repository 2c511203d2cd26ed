/* loss_log_probs: the loss of log-probabilities as they stand, a plain sum. */

static void K(plain_loss_merge)(const klce_call *call, double *into, const double *from)
{
    (void)call;
    for (int f = 0; f < K(LOSS_SUMS); f++)
        into[f * KLCE_TILE] += from[f * KLCE_TILE];
}

KLCE_INLINE void K(plain_loss_finish)(const klce_call *call, K(form) form, ptrdiff_t row,
                                      ptrdiff_t count, const double *state)
{
    static const double none[KLCE_TILE];
    K(mix) mix = K(mix_of)(call);
    K(picked) picked = {0};
    double distance[KLCE_TILE];
    K(pick_tile)(call, !mix.soft, row, count, &picked);
    K(distance_at_labels)(form, &picked, count, distance);
    const K(loss_tile) tile = {1, distance, none, none, state};
    K(put_losses)(call, K(SMOOTHING) + 1, row, count, &mix, &picked, &tile);
}

KLCE_INLINE void K(plain_loss_few)(const klce_call *call, K(form) form, ptrdiff_t row)
{
    double sums[K(LOSS_SUMS) *KLCE_TILE];
    K(tile) tile;
    if (K(loss_has_few)(call)) {
        K(load_tile)(call, 0, row, &tile);
        K(sum_loss_few)(call, form, &tile, NULL, row, sums);
    } else {
        for (int i = 0; i < KLCE_TILE; i++)
            K(sweep_loss)(call, form, 0, row + i, 0, call->n, sums + i);
    }
    K(plain_loss_finish)(call, form, row, KLCE_TILE, sums);
}

static void K(loss_log_probs_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                    ptrdiff_t high, double *state)
{
    K(sweep_loss)(call, K(LOG_PROBS), 0, row, low, high, state);
}

static void K(loss_log_probs_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                     double *state)
{
    K(plain_loss_finish)(call, K(LOG_PROBS), row, count, state);
}

static void K(loss_log_probs_few)(const klce_call *call, ptrdiff_t row)
{
    K(plain_loss_few)(call, K(LOG_PROBS), row);
}

static const klce_kernel K(loss_log_probs_kernel) = {
    .prepare = K(loss_prepare),
    .pass = {{K(loss_log_probs_sweep), SHARED(plain_loss_merge), K(loss_log_probs_finish)}},
    .few = TILE_OF(loss_log_probs_few),
};
