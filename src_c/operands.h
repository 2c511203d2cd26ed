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
