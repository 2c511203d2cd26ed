/* weighted_nll: minus the log-probability at the label, times the weights of its class and row. */

KLCE_INLINE void K(weighted_nll)(const klce_call *call, ptrdiff_t low, ptrdiff_t high, K(form) form)
{
    static const double none[KLCE_TILE], no_sums[K(LOSS_SUMS) *KLCE_TILE];
    const K(mix) mix = {0};
    K(picked) picked = {0};
    double distance[KLCE_TILE];
    const K(loss_tile) tile = {1, distance, none, none, no_sums};
    for (ptrdiff_t row = low; row < high; row += KLCE_TILE) {
        ptrdiff_t count = KLCE_LESSER(KLCE_TILE, high - row);
        K(prefetch_at_labels)(call, row + KLCE_TILE, high);
        K(pick_tile)(call, 1, row, count, &picked);
        K(distance_at_labels)(form, &picked, count, distance);
        K(put_losses)(call, K(ROW_WEIGHT) + 1, row, count, &mix, &picked, &tile);
    }
}

static void K(weighted_nll_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(weighted_nll)(call, low, high, K(LOG_PROBS));
}

static const klce_kernel K(weighted_nll_kernel) = {.rows = K(weighted_nll_rows)};
