/* Walking rows: operands, and the driver that takes an op's passes over a range of rows. */

KLCE_INLINE const real *K(row_in)(const klce_call *call, int k, ptrdiff_t row)
{
    return (const real *)(call->arg[k] + row * call->step[k]);
}

KLCE_INLINE real *K(row_out)(const klce_call *call, int k, ptrdiff_t row)
{
    return (real *)(call->arg[k] + row * call->step[k]);
}

KLCE_INLINE int64_t K(label)(const klce_call *call, int k, ptrdiff_t row)
{
    return *(const int64_t *)(call->arg[k] + row * call->step[k]);
}

/* One element of a gathered operand, whose classes may lie apart. */
KLCE_INLINE real K(gather)(const klce_call *call, int k, ptrdiff_t row, int64_t class)
{
    return *(const real *)(call->arg[k] + row * call->step[k] + class * call->core[k]);
}

/* The value at the row's label: sets *counted to 0 where the label is ignored, and gives nan for a
 * label that is out of range. */
KLCE_INLINE real K(at_label)(const klce_call *call, ptrdiff_t row, int *counted)
{
    int64_t label = K(label)(call, 1, row);
    *counted = label != *(const int64_t *)call->arg[2];
    if (label < 0 || label >= call->n) {
        if (*counted)
            atomic_store_explicit(call->bad_label, 1, memory_order_relaxed);
        return (real)NAN;
    }
    return K(gather)(call, 0, row, label);
}

KLCE_INLINE void K(sweep_row)(const klce_call *call, ptrdiff_t row, klce_sweep sweep,
                              klce_merge merge, double *state)
{
    double part[KLCE_FIELDS * KLCE_TILE];
    sweep(call, row, 0, KLCE_LESSER(call->n, KLCE_SEGMENT), state);
    for (ptrdiff_t low = KLCE_SEGMENT; low < call->n; low += KLCE_SEGMENT) {
        ptrdiff_t high = KLCE_LESSER(call->n, low + KLCE_SEGMENT);
        if (merge) {
            /* A later pass finds what the earlier ones left in the state. */
            for (int f = 0; f < KLCE_FIELDS; f++)
                part[f * KLCE_TILE] = state[f * KLCE_TILE];
            sweep(call, row, low, high, part);
            merge(call, row, state, part);
        } else {
            sweep(call, row, low, high, state);
        }
    }
}

/* Rows [low, high) by tiles of as many rows as stay in L2 between the passes (256 kB), at most
 * KLCE_TILE.  With the functions known at compile time all of it is inlined into one loop. */
KLCE_INLINE void K(drive)(const klce_call *call, ptrdiff_t low, ptrdiff_t high, klce_sweep sweep0,
                          klce_merge merge0, klce_finish finish0, klce_sweep sweep1,
                          klce_merge merge1, klce_finish finish1)
{
    double state[KLCE_FIELDS * KLCE_TILE] = {0};
    ptrdiff_t tile = (ptrdiff_t)(262144 / sizeof(real)) / (call->n + 1);
    tile = tile < 1 ? 1 : KLCE_LESSER(tile, KLCE_TILE);
    for (ptrdiff_t row = low; row < high; row += tile) {
        ptrdiff_t count = KLCE_LESSER(tile, high - row);
        for (ptrdiff_t i = 0; i < count; i++)
            K(sweep_row)(call, row + i, sweep0, merge0, state + i);
        if (finish0)
            finish0(call, row, count, state);
        if (sweep1)
            for (ptrdiff_t i = 0; i < count; i++)
                K(sweep_row)(call, row + i, sweep1, merge1, state + i);
        if (finish1)
            finish1(call, row, count, state);
    }
}
