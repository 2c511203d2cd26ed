/* binary entropy: -p log p - (1 - p) log1p(-p), elementwise; nan outside [0, 1]. */

KLCE_INLINE K(v) K(binary_entropy)(K(v) p)
{
    K(v) one = K(set)(1), zero = K(set)(0), q = one - p;
    K(v) y = zero - p * K(log)(p);
    K(v) rest = zero - q * K(log1p)(-p);
    /* 0 log 0 is 0. */
    y = K(select)(K(eq)(p, zero), zero, y) + K(select)(K(eq)(p, one), zero, rest);
    return K(select)(K(or)(K(lt)(p, zero), K(lt)(one, p)), K(set)((real)NAN), y);
}

static void K(binary_entropy_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(v) group[VECTORS];
    for (ptrdiff_t row = low; row < high; row++) {
        const elem *p = K(row_in)(call, 0, row);
        elem *y = K(row_out)(call, 1, row);
        for (ptrdiff_t i = 0; i < call->n; i += LANES) {
            K(load_group)(p + i, call->n - i, 1, group);
            EACH_VECTOR(v) group[v] = K(binary_entropy)(group[v]);
            K(store_group)(y + i, call->n - i, group);
        }
    }
}

static const klce_kernel K(binary_entropy_kernel) = {.rows = K(binary_entropy_rows)};
