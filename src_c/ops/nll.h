/* nll: minus the log-probability at the label. */

static void K(nll_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    double value[KLCE_TILE], counted[KLCE_TILE];
    for (ptrdiff_t row = low; row < high; row += KLCE_TILE) {
        ptrdiff_t count = KLCE_LESSER(KLCE_TILE, high - row);
        K(at_labels)(call, row, count, value, counted);
        for (ptrdiff_t i = 0; i < count; i++)
            value[i] = counted[i] != 0 ? -value[i] : 0;
        K(put)(call, 3, row, count, value);
    }
}

static const klce_kernel K(nll_kernel) = {.rows = K(nll_rows)};
