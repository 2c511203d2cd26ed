/* A call's operands, row by row. */

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
