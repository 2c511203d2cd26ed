/* information: -log p, elementwise; nan below 0, inf at 0. */

static void K(information_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(v) group[VECTORS];
    for (ptrdiff_t row = low; row < high; row++) {
        const elem *p = K(row_in)(call, 0, row);
        elem *y = K(row_out)(call, 1, row);
        for (ptrdiff_t i = 0; i < call->n; i += LANES) {
            K(load_group)(p + i, call->n - i, 1, group);
            EACH_VECTOR(v) group[v] = K(set)(0) - K(log)(group[v]);
            K(store_group)(y + i, call->n - i, group);
        }
    }
}

static const klce_kernel K(information_kernel) = {.rows = K(information_rows)};
