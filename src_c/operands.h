/* A call's operands, row by row. */

KLCE_INLINE const elem *K(row_in)(const klce_call *call, int k, ptrdiff_t row)
{
    return (const elem *)(call->arg[k] + row * call->step[k]);
}

KLCE_INLINE elem *K(row_out)(const klce_call *call, int k, ptrdiff_t row)
{
    return (elem *)(call->arg[k] + row * call->step[k]);
}

/* Where the one result of a row goes. */
KLCE_INLINE real *K(result)(const klce_call *call, int k, ptrdiff_t row)
{
    return (real *)(call->arg[k] + row * call->step[k]);
}

/* Puts what stands for a masked class where that is the label's. */
KLCE_INLINE void K(mask_labels)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *values)
{
    double fill = klce_op_fills[call->op][0] == '0' ? 0 : -INFINITY;
    for (ptrdiff_t i = 0; i < count; i++) {
        const char *mask = call->mask + (row + i) * call->mask_step;
        int64_t label = *(const int64_t *)(call->arg[1] + (row + i) * call->step[1]);
        if ((uint64_t)label < (uint64_t)call->n && !mask[label * call->mask_core])
            values[i] = fill;
    }
}

/* The values at the labels of rows [row, row + count), whose classes may lie apart or be masked, and 1
 * for each that counts, 0 for each that is ignored; nan at a label that is out of range.  No branch hangs on a
 * label. */
KLCE_INLINE void K(at_labels)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *values,
                              double *counted)
{
    static const elem none; /* read in the place of a label's element that there is not */
    const char *x = call->arg[0] + row * call->step[0],
               *labels = call->arg[1] + row * call->step[1];
    ptrdiff_t step = call->step[0], label_step = call->step[1], core = call->core[0];
    int64_t ignored = *(const int64_t *)call->arg[2];
    uint64_t n = (uint64_t)call->n;
    int bad = 0;
    for (ptrdiff_t i = 0; i < count; i++, x += step, labels += label_step) {
        int64_t label = *(const int64_t *)labels;
        int counts = label != ignored, inside = (uint64_t)label < n;
        bad |= counts & !inside;
        real value = K(value)(*(inside ? (const elem *)(x + label * core) : &none));
        values[i] = inside ? value : (real)NAN;
        counted[i] = counts;
    }
    if (call->mask)
        K(mask_labels)(call, row, count, values);
    if (bad)
        atomic_store_explicit(call->bad_label, 1, memory_order_relaxed);
}
