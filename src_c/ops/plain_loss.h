/* The loss of what stands as it is, a plain sum: of log-probabilities and of probabilities. */

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
