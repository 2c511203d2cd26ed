/* nll_probs: minus the logarithm of the probability at the label, a tile's rows at a time. */

static void K(nll_probs_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    double result[KLCE_TILE] = {0}, counted[KLCE_TILE];
    for (ptrdiff_t row = low; row < high; row += KLCE_TILE) {
        ptrdiff_t count = KLCE_LESSER(KLCE_TILE, high - row);
        K(at_labels)(call, row, count, result, counted);
        for (ptrdiff_t i = 0; i < count; i++)
            result[i] = counted[i] != 0 ? result[i] : 1;
        /* 0 - log 1 is 0, where -log 1 would be -0. */
        EACH_STATE(i, count) store_f64(result + i, set_f64(0) - log_f64(load_f64(result + i)));
        K(put)(call, 3, row, count, result);
    }
}

static const klce_kernel K(nll_probs_kernel) = {.rows = K(nll_probs_rows)};
