/* Rows of at most FEW classes: WIDTH rows side by side, a lane each, so that nothing is spent on
 * the lanes that a short row leaves empty, nor on sums across lanes.
 *
 * Class j of the rows is column j.  In the row kernels class j of a row goes to lane j % LANES;
 * here column j is added to column j % LANES of sums, in the same order, and those are added in the
 * order in which lanes are there, so that the bits are the same.
 */
#define EACH_GROUP(group, n) for (ptrdiff_t group = 0; group < (n); group += LANES)
#define EACH_LANE(l, group, n) for (ptrdiff_t l = 0; l < KLCE_LESSER(LANES, (n) - (group)); l++)

/* The rows from `row` on of operand k as columns.  Columns up to the next multiple of WIDTH are
 * written: what stands in those beyond the classes is no row's.  The last ones may be read
 * twice. */
static KLCE_NOINLINE void K(load_columns)(const klce_call *call, int k, ptrdiff_t row, K(v) *column)
{
    const char *first = (const char *)K(row_in)(call, k, row);
    ptrdiff_t step = call->step[k], n = call->n;
#if KLCE_ELEM_IS_F32 && KLCE_VECTOR_BYTES
    if (n >= 4) {
        for (ptrdiff_t j = 0; j + 4 < n; j += 4)
            load_four_columns(first + j * (ptrdiff_t)sizeof(elem), step, column + j);
        load_four_columns(first + (n - 4) * (ptrdiff_t)sizeof(elem), step, column + n - 4);
        return;
    }
#endif
    for (ptrdiff_t j = 0; j < n; j += WIDTH) {
        int part = (int)KLCE_LESSER(n - j, WIDTH);
        if (part < WIDTH && n >= WIDTH) {
            j = n - WIDTH;
            part = WIDTH;
        }
        KLCE_UNROLL for (int i = 0; i < WIDTH; i++)
        {
            const elem *x = (const elem *)(first + i * step) + j;
            column[j + i] = part == WIDTH ? K(load)(x) : K(load_part)(x, part, K(set)(0));
        }
        K(transpose)(column + j);
    }
}

/* Writes columns to operand k; what they held is lost. */
static KLCE_NOINLINE void K(store_columns)(const klce_call *call, int k, ptrdiff_t row,
                                           K(v) *column)
{
    char *first = (char *)K(row_out)(call, k, row);
    ptrdiff_t step = call->step[k], n = call->n, j = 0;
#if KLCE_ELEM_IS_F32 && KLCE_VECTOR_BYTES
    if (n >= 4) {
        for (; j + 4 < n; j += 4)
            store_four_columns(first + j * (ptrdiff_t)sizeof(elem), step, column + j);
        store_four_columns(first + (n - 4) * (ptrdiff_t)sizeof(elem), step, column + n - 4);
        return;
    }
#endif
    for (; j + WIDTH <= n; j += WIDTH) {
        K(transpose)(column + j);
        KLCE_UNROLL for (int i = 0; i < WIDTH; i++)
            K(store)((elem *)(first + i * step) + j, column[j + i]);
    }
    if (j < n) {
        K(transpose)(column + j);
        KLCE_UNROLL for (int i = 0; i < WIDTH; i++)
            K(store_part)((elem *)(first + i * step) + j, (int)(n - j), column[j + i]);
    }
}

/* The largest and the smallest of n columns and of what to start from, nan passed over, in chains
 * that wait for each other at the end alone. */
#define OF_COLUMNS(most_of)                                                                        \
    KLCE_INLINE K(v) K(most_of##_of_columns)(const K(v) *column, ptrdiff_t n, K(v) start)          \
    {                                                                                              \
        K(v) most[4] = {start, start, start, start};                                               \
        ptrdiff_t j = 0;                                                                           \
        for (; j + 4 <= n; j += 4)                                                                 \
            KLCE_UNROLL for (int k = 0; k < 4; k++) most[k] = K(most_of)(column[j + k], most[k]);  \
        for (; j < n; j++)                                                                         \
            most[0] = K(most_of)(column[j], most[0]);                                              \
        return K(most_of)(K(most_of)(most[0], most[1]), K(most_of)(most[2], most[3]));             \
    }
OF_COLUMNS(max)
OF_COLUMNS(min)
#undef OF_COLUMNS

/* The vectors of doubles that WIDTH values make, and one of them. */
#define HALVES (WIDTH / KLCE_WIDTH_f64)
KLCE_INLINE v_f64 K(doubles)(K(v) v, int half)
{
#if KLCE_REAL_IS_F64
    return (void)half, v;
#else
    return half ? widen_high(v) : widen_low(v);
#endif
}

/* WIDTH values as doubles, into a tile's field; and back, rounded. */
KLCE_INLINE void K(store_field)(double *field, K(v) value)
{
    KLCE_UNROLL for (int h = 0; h < HALVES; h++)
        store_f64(field + h * KLCE_WIDTH_f64, K(doubles)(value, h));
}

KLCE_INLINE K(v) K(joined_halves)(const v_f64 *halves)
{
#if KLCE_REAL_IS_F64
    return halves[0];
#else
    return narrow(halves[0], halves[HALVES - 1]);
#endif
}

KLCE_INLINE void K(load_halves)(const double *field, v_f64 *halves)
{
    KLCE_UNROLL for (int h = 0; h < HALVES; h++) halves[h] = load_f64(field + h * KLCE_WIDTH_f64);
}

KLCE_INLINE K(v) K(load_field)(const double *field)
{
    v_f64 halves[HALVES];
    K(load_halves)(field, halves);
    return K(joined_halves)(halves);
}

/* WIDTH doubles, with what `rest` has of them beyond a double (NULL: nothing), in two pieces. */
KLCE_INLINE void K(split_halves)(const v_f64 *halves, const v_f64 *rest, K(v) *high, K(v) *low)
{
    v_f64 left[HALVES];
    *high = K(joined_halves)(halves);
    KLCE_UNROLL for (int h = 0; h < HALVES; h++)
    {
        left[h] = halves[h] - K(doubles)(*high, h);
        if (rest)
            left[h] = left[h] + rest[h];
    }
    *low = K(joined_halves)(left);
}

/* The sum of n columns, one for each of the first lanes, in float64 and in the order of K(total);
 * of column[j] + more[j], where `more` is given. */
KLCE_INLINE void K(sum_column_pairs)(const K(v) *column, const K(v) *more, ptrdiff_t n,
                                     double *field)
{
    v_f64 four[4][HALVES], zero = set_f64(0);
#if KLCE_REAL_IS_F64
    v_f64 lost[4][HALVES];
#endif
    KLCE_UNROLL for (int k = 0; k < 4; k++) KLCE_UNROLL for (int h = 0; h < HALVES; h++)
    {
        four[k][h] = zero;
#if KLCE_REAL_IS_F64
        lost[k][h] = zero;
#endif
    }
    n = KLCE_LESSER(n, LANES);
    for (ptrdiff_t j = 0; j < n; j += 4)
        KLCE_UNROLL for (int k = 0; k < 4; k++)
        {
            if (j + k >= n)
                break;
            KLCE_UNROLL for (int h = 0; h < HALVES; h++)
            {
                v_f64 value = K(doubles)(column[j + k], h);
#if KLCE_REAL_IS_F64
                v_f64 low = zero;
                if (more)
                    ADD_KEEPING(v_f64, value, more[j + k], low);
                ADD_KEEPING(v_f64, four[k][h], value, lost[k][h]);
                lost[k][h] = lost[k][h] + low;
#else
                if (more)
                    value = value + K(doubles)(more[j + k], h);
                four[k][h] = four[k][h] + value;
#endif
            }
        }
    KLCE_UNROLL for (int h = 0; h < HALVES; h++)
    {
#if KLCE_REAL_IS_F64
        ADD_KEEPING(v_f64, four[0][h], four[2][h], lost[0][h]);
        ADD_KEEPING(v_f64, four[1][h], four[3][h], lost[1][h]);
        ADD_KEEPING(v_f64, four[0][h], four[1][h], lost[0][h]);
        v_f64 rest = (lost[0][h] + lost[2][h]) + (lost[1][h] + lost[3][h]);
        v_f64 sum = four[0][h] + select_f64(eq_f64(rest, rest), rest, zero);
#else
        v_f64 sum = (four[0][h] + four[2][h]) + (four[1][h] + four[3][h]);
#endif
        store_f64(field + h * KLCE_WIDTH_f64, sum);
    }
}

static KLCE_NOINLINE void K(sum_columns)(const K(v) *column, ptrdiff_t n, double *field)
{
    K(sum_column_pairs)(column, NULL, n, field);
}

/* The same of columns that are doubles, of KLCE_WIDTH_f64 rows. */
KLCE_INLINE void K(sum_double_columns)(const v_f64 *column, ptrdiff_t n, double *field)
{
#if KLCE_REAL_IS_F64
    K(sum_columns)(column, n, field);
#else
    v_f64 zero = set_f64(0), four[4] = {zero, zero, zero, zero};
    for (ptrdiff_t j = 0; j < KLCE_LESSER(n, LANES); j++)
        four[j % 4] = four[j % 4] + column[j];
    store_f64(field, (four[0] + four[2]) + (four[1] + four[3]));
#endif
}
