/* A tile's states as finish takes them, KLCE_WIDTH_f64 rows at a time,
 * and the results that it puts. */
#define EACH_STATE(i, count) for (int i = 0; i < (count); i += KLCE_WIDTH_f64)

KLCE_INLINE v_f64 K(state)(const double *state, int field, int i)
{
    return load_f64(state + field * KLCE_TILE + i);
}

/* What is left of a kernel's passes for rows of one segment, whose first sweep is done. */
KLCE_INLINE void K(finish_passes)(const klce_call *call, const klce_kernel *kernel, ptrdiff_t row,
                                  ptrdiff_t count, double *state)
{
    const klce_pass *pass = kernel->pass, *end = pass + KLCE_PASSES;
    for (;;) {
        if (pass->finish)
            pass->finish(call, row, count, state);
        if (++pass == end || !pass->sweep)
            return;
        for (ptrdiff_t i = 0; i < count; i++)
            pass->sweep(call, row + i, 0, call->n, state + i);
    }
}

/* The rows' results, from a tile's worth of doubles to operand k. */
KLCE_INLINE void K(put)(const klce_call *call, int k, ptrdiff_t row, ptrdiff_t count,
                        const double *values)
{
    if (count == KLCE_TILE && call->step[k] == sizeof(real))
        KLCE_UNROLL for (int i = 0; i < KLCE_TILE; i += WIDTH)
            V(store)(K(result)(call, k, row) + i, K(load_field)(values + i));
    else
        for (ptrdiff_t i = 0; i < count; i++)
            *K(result)(call, k, row + i) = (real)values[i];
}
