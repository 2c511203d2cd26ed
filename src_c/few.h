/* Rows of at most LANES classes: WIDTH rows side by side, a lane each, so that nothing is spent on
 * the lanes that a short row leaves empty, nor on sums across lanes.
 *
 * Class j of the rows is column j.  In the row kernels a short row puts class j into lane j; here
 * the columns are added in the order in which lanes are there, so that the bits are the same.
 */

/* Transposes WIDTH vectors: each of log2(WIDTH) rounds interleaves vector i with vector
 * i + WIDTH/2, which moves one bit of the vector's number into the lane's. */
KLCE_INLINE void K(transpose)(K(v) *square)
{
    KLCE_UNROLL for (int round = 1; round < WIDTH; round *= 2)
    {
        K(v) old[WIDTH];
        KLCE_UNROLL for (int i = 0; i < WIDTH; i++) old[i] = square[i];
        KLCE_UNROLL for (int i = 0; i < WIDTH / 2; i++)
        {
            square[2 * i] = K(low_pairs)(old[i], old[i + WIDTH / 2]);
            square[2 * i + 1] = K(high_pairs)(old[i], old[i + WIDTH / 2]);
        }
    }
}

/* The rows from `row` on of operand k as columns.  Columns up to the next multiple of WIDTH are
 * written: what stands in those beyond the classes is no row's. */
KLCE_INLINE void K(load_columns)(const klce_call *call, int k, ptrdiff_t row, K(v) *column)
{
    for (int j = 0; j < call->n; j += WIDTH) {
        int part = call->n - j < WIDTH ? (int)(call->n - j) : WIDTH;
        KLCE_UNROLL for (int i = 0; i < WIDTH; i++)
        {
            const real *x = K(row_in)(call, k, row + i);
            column[j + i] = K(load_part)(x + j, part, K(set)(0));
        }
        K(transpose)(column + j);
    }
}

/* Writes columns to operand k; what they held is lost. */
KLCE_INLINE void K(store_columns)(const klce_call *call, int k, ptrdiff_t row, K(v) *column)
{
    for (int j = 0; j < call->n; j += WIDTH) {
        int part = call->n - j < WIDTH ? (int)(call->n - j) : WIDTH;
        K(transpose)(column + j);
        KLCE_UNROLL for (int i = 0; i < WIDTH; i++)
            K(store_part)(K(row_out)(call, k, row + i) + j, part, column[j + i]);
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

/* The sum of n columns in float64, by halves of LANES as in K(total); of column[j] + more[j], where
 * `more` is given. */
KLCE_INLINE void K(sum_column_pairs)(const K(v) *column, const K(v) *more, ptrdiff_t n,
                                     double *field)
{
#if KLCE_REAL_IS_F64 || !KLCE_VECTOR_BYTES
    double sum[LANES][WIDTH], other[WIDTH];
    for (ptrdiff_t j = 0; j < n; j++) {
        K(store_field)(sum[j], column[j]);
        if (more) {
            K(store_field)(other, more[j]);
            for (int i = 0; i < WIDTH; i++)
                sum[j][i] += other[i];
        }
    }
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
        if (more) {
            low[j] = low[j] + widen_low(more[j]);
            high[j] = high[j] + widen_high(more[j]);
        }
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

KLCE_INLINE void K(sum_columns)(const K(v) *column, ptrdiff_t n, double *field)
{
    K(sum_column_pairs)(column, NULL, n, field);
}
