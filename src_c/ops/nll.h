/* nll: minus the log-probability at the label. */

static void K(nll_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    for (ptrdiff_t row = low; row < high; row++) {
        int counted;
        real x = K(at_label)(call, row, &counted);
        *K(row_out)(call, 3, row) = counted ? -x : 0;
    }
}

static const klce_kernel K(nll_kernel) = {.rows = K(nll_rows)};
