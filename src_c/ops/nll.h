/* nll: minus the log-probability at the label. */

static void K(nll_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(labels) labels = {.value = {0}};
    for (ptrdiff_t row = low; row < high; row += KLCE_TILE) {
        ptrdiff_t count = KLCE_LESSER(KLCE_TILE, high - row);
        K(prefetch_at_labels)(call, row + KLCE_TILE, high);
        K(read_at_labels)(call, row, count, &labels);
        EACH_STATE(i, count)
        {
            m_f64 ignored = eq_f64(load_f64(labels.counted + i), set_f64(0));
            v_f64 loss = -load_f64(labels.value + i);
            store_f64(labels.value + i, select_f64(ignored, set_f64(0), loss));
        }
        K(put)(call, 3, row, count, labels.value);
    }
}

static const klce_kernel K(nll_kernel) = {.rows = K(nll_rows)};
