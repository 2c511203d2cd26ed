/* Rows of at most LANES classes: WIDTH rows side by side, a lane each, so that nothing is spent on
 * the lanes that a short row leaves empty, nor on sums across lanes.
 *
 * Class j of the rows is column j.  In the row kernels a short row puts class j into lane j; here
 * the columns are added in the order in which lanes are there, so that the bits are the same.
 */

/* Copies the rows from `row` on of operand k, transposed. */
KLCE_INLINE void K(load_columns)(const klce_call *call, int k, ptrdiff_t row, K(v) * column)
{
    real lane[LANES * WIDTH];
    for (int i = 0; i < WIDTH; i++) {
        const real *x = K(row_in)(call, k, row + i);
        for (ptrdiff_t j = 0; j < call->n; j++)
            lane[j * WIDTH + i] = x[j];
    }
    for (ptrdiff_t j = 0; j < call->n; j++)
        column[j] = K(load)(lane + j * WIDTH);
}

KLCE_INLINE void K(store_columns)(const klce_call *call, int k, ptrdiff_t row,
                                  const K(v) * column)
{
    real lane[LANES * WIDTH];
    for (ptrdiff_t j = 0; j < call->n; j++)
        K(store)(lane + j * WIDTH, column[j]);
    for (int i = 0; i < WIDTH; i++) {
        real *y = K(row_out)(call, k, row + i);
        for (ptrdiff_t j = 0; j < call->n; j++)
            y[j] = lane[j * WIDTH + i];
    }
}

/* WIDTH values as doubles, into a tile's field; and back, rounded. */
KLCE_INLINE void K(store_field)(double *field, K(v) value)
{
#if KLCE_REAL_IS_F64 || !KLCE_VECTOR_BYTES
    real lane[WIDTH];
    K(store)(lane, value);
    for (int i = 0; i < WIDTH; i++)
        field[i] = lane[i];
#else
    store_f64(field, widen_low(value));
    store_f64(field + WIDTH / 2, widen_high(value));
#endif
}

KLCE_INLINE K(v) K(load_field)(const double *field)
{
    real lane[WIDTH];
    for (int i = 0; i < WIDTH; i++)
        lane[i] = (real)field[i];
    return K(load)(lane);
}

/* The sum of n columns in float64, by halves of LANES as in K(total). */
KLCE_INLINE void K(sum_columns)(const K(v) * column, ptrdiff_t n, double *field)
{
#if KLCE_REAL_IS_F64 || !KLCE_VECTOR_BYTES
    double sum[LANES][WIDTH];
    for (ptrdiff_t j = 0; j < n; j++)
        K(store_field)(sum[j], column[j]);
    for (ptrdiff_t half = LANES / 2; half; half /= 2)
        for (ptrdiff_t j = 0; j + half < KLCE_LESSER(n, 2 * half); j++)
            for (int i = 0; i < WIDTH; i++)
                sum[j][i] += sum[j + half][i];
    for (int i = 0; i < WIDTH; i++)
        field[i] = sum[0][i];
#else
    v_f64 low[LANES], high[LANES];
    for (ptrdiff_t j = 0; j < n; j++) {
        low[j] = widen_low(column[j]);
        high[j] = widen_high(column[j]);
    }
    for (ptrdiff_t half = LANES / 2; half; half /= 2)
        for (ptrdiff_t j = 0; j + half < KLCE_LESSER(n, 2 * half); j++) {
            low[j] = low[j] + low[j + half];
            high[j] = high[j] + high[j + half];
        }
    store_f64(field, low[0]);
    store_f64(field + WIDTH / 2, high[0]);
#endif
}
