/* Rows of at most FEW classes: WIDTH rows side by side, a lane each, so that nothing is spent on
 * the lanes that a short row leaves empty, nor on sums across lanes.  They may lie so in memory.
 *
 * Class j of the rows is column j.  What is summed by LANES (entropy and JS of probabilities,
 * losses, pairs) adds column j to sum j % LANES, as the row kernels do.  Exponentials and the terms
 * of KL of probabilities have fewer lanes (EXP_LANES, TERM_LANES), softmax an order of its own.  A
 * row that no tile takes is summed in the same order by expsum_short, kl_probs_short and
 * softmax_sum_short, so that the bits are the same.
 */
_Static_assert(FEW * sizeof(real) == KLCE_FEW_BYTES, "rows.c and kernels agree on what few is");
#define EACH_GROUP(group, n) for (ptrdiff_t group = 0; group < (n); group += LANES)
#define EACH_LANE(l, group, n) for (ptrdiff_t l = 0; l < KLCE_LESSER(LANES, (n) - (group)); l++)

/* Whether the rows of operand k lie side by side, see klce_kernel: a class of several rows is
 * together, not the classes of a row. */
KLCE_INLINE int K(in_columns)(const klce_call *call, int k)
{
    return call->n > 1 && call->core[k] != (ptrdiff_t)sizeof(elem);
}

/* Of WIDTH rows, `step` bytes apart, `part` classes as columns, WIDTH at most. */
KLCE_INLINE void K(load_square)(const char *first, ptrdiff_t step, int part, K(v) *column)
{
    KLCE_UNROLL for (int i = 0; i < WIDTH; i++)
    {
        const elem *x = (const elem *)(first + i * step);
        column[i] = part == WIDTH ? K(load)(x) : K(load_part)(x, part, K(set)(0));
    }
    K(transpose)(column);
}

/* The rows from `row` on of operand k as columns.  Of fewer than four classes, and of 16 bits, more
 * columns are written, up to a multiple of four or WIDTH: what stands there counts for nothing.
 * The last ones may be read twice. */
static KLCE_NOINLINE void K(load_columns)(const klce_call *call, int k, ptrdiff_t row, K(v) *column)
{
    const char *first = (const char *)K(row_in)(call, k, row);
    const ptrdiff_t step = call->step[k], n = call->n, size = sizeof(elem);
    ptrdiff_t j = 0;
    if (K(in_columns)(call, k)) {
        for (; j < n; j++)
            column[j] = K(load)((const elem *)(first + j * call->core[k]));
        return;
    }
#if KLCE_ELEM_BITS >= 32 && KLCE_VECTOR_BYTES
    /* Squares of float64 take as many instructions for a column, and read rows by the line. */
    for (; size == 8 && j + WIDTH <= n; j += WIDTH)
        K(load_square)(first + j * size, step, WIDTH, column + j);
    if (n >= 4) {
        for (; j + 4 < n; j += 4)
            K(load_four_columns)(first + j * size, step, column + j);
        if (j < n)
            K(load_four_columns)(first + (n - 4) * size, step, column + n - 4);
        return;
    }
    /* Of fewer, what a row lacks of four is read from the rows after it. */
    if (step == n * size && row + WIDTH + 3 <= call->rows) {
        K(load_four_columns)(first, step, column);
        return;
    }
#endif
    for (; j < n; j += WIDTH) {
        if (n - j < WIDTH && n >= WIDTH)
            j = n - WIDTH;
        K(load_square)(first + j * size, step, (int)KLCE_LESSER(n - j, WIDTH), column + j);
    }
}

/* A tile's rows as columns, those of WIDTH rows together. */
typedef struct {
    K(v) column[KLCE_TILE / WIDTH][FEW];
} K(tile);

KLCE_INLINE void K(load_tile)(const klce_call *call, int k, ptrdiff_t row, K(tile) *tile)
{
    for (int w = 0; w < KLCE_TILE / WIDTH; w++)
        K(load_columns)(call, k, row + w * WIDTH, tile->column[w]);
}

/* Asks for the lines of operand k's tile, to which columns will be written, if they are more than
 * the processor itself would have asked for by then. */
KLCE_INLINE void K(prefetch_tile)(const klce_call *call, int k, ptrdiff_t row)
{
    uintptr_t first = (uintptr_t)K(row_out)(call, k, row);
    ptrdiff_t size = call->n * (ptrdiff_t)sizeof(elem);
    if (call->step[k] == size && KLCE_TILE * size >= 4096)
        for (ptrdiff_t line = 0; line < KLCE_TILE * size; line += 64)
            KLCE_PREFETCH((void *)(first + (uintptr_t)line));
}

/* Writes columns to operand k; what they held is lost. */
static KLCE_NOINLINE void K(store_columns)(const klce_call *call, int k, ptrdiff_t row,
                                           K(v) *column)
{
    char *first = (char *)K(row_out)(call, k, row);
    ptrdiff_t step = call->step[k], n = call->n, j = 0;
    if (K(in_columns)(call, k)) {
        for (; j < n; j++)
            K(store)((elem *)(first + j * call->core[k]), column[j]);
        return;
    }
    if (n == 2 && step == n * (ptrdiff_t)sizeof(elem)) {
        K(store)((elem *)first, K(low_pairs)(column[0], column[1]));
        K(store)((elem *)first + WIDTH, K(high_pairs)(column[0], column[1]));
        return;
    }
#if KLCE_ELEM_BITS == 32 && KLCE_VECTOR_BYTES
    if (n >= 4) {
        for (; j + 4 < n; j += 4)
            store_four_columns(first + j * (ptrdiff_t)sizeof(elem), step, column + j);
        store_four_columns(first + (n - 4) * (ptrdiff_t)sizeof(elem), step, column + n - 4);
        return;
    }
    if (n == 3 && step == n * (ptrdiff_t)sizeof(elem)) {
        store_three_columns(first, column);
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

/* The classes of a row of operand k together, in `room` where rows lie side by side. */
KLCE_INLINE const elem *K(gathered)(const klce_call *call, int k, ptrdiff_t row, elem *room)
{
    const char *x = (const char *)K(row_in)(call, k, row);
    if (!K(in_columns)(call, k))
        return (const elem *)x;
    for (ptrdiff_t j = 0; j < call->n; j++)
        room[j] = *(const elem *)(x + j * call->core[k]);
    return room;
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

/* The same of a vector that lies in memory: cheaper than to take a half out of a register. */
KLCE_INLINE v_f64 K(doubles_at)(const K(v) *v, int half)
{
    return K(load_doubles)((const real *)v + half * KLCE_WIDTH_f64);
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

/* What four sums of columns hold, in float64; those of float64, with what rounding took. */
typedef struct {
    v_f64 sum[4][HALVES];
#if KLCE_REAL_IS_F64
    v_f64 lost[4][HALVES];
#endif
} K(four_sums);

KLCE_INLINE void K(add_column)(K(four_sums) *four, int k, const K(v) *column, const K(v) *more)
{
    KLCE_UNROLL for (int h = 0; h < HALVES; h++)
    {
        v_f64 value = K(doubles_at)(column, h);
#if KLCE_REAL_IS_F64
        v_f64 low = set_f64(0);
        if (more)
            ADD_KEEPING(v_f64, value, *more, low);
        ADD_KEEPING(v_f64, four->sum[k][h], value, four->lost[k][h]);
        four->lost[k][h] = four->lost[k][h] + low;
#else
        if (more)
            value = value + K(doubles_at)(more, h);
        four->sum[k][h] = four->sum[k][h] + value;
#endif
    }
}

/* Adds n columns, one for each of the first lanes; column[j] + more[j], where `more` is given. */
KLCE_INLINE void K(add_columns)(K(four_sums) *four, const K(v) *column, const K(v) *more,
                                ptrdiff_t n)
{
    ptrdiff_t j = 0;
    for (; j + 4 <= n; j += 4)
        KLCE_UNROLL for (int k = 0; k < 4; k++)
            K(add_column)(four, k, column + j + k, more ? more + j + k : NULL);
    KLCE_UNROLL for (int k = 0; k < 3; k++) if (j + k < n)
        K(add_column)(four, k, column + j + k, more ? more + j + k : NULL);
}

/* Four sums, `stride` vectors apart, in the order of K(total); of float32 nothing was lost. */
KLCE_INLINE v_f64 K(four_added)(const v_f64 *sum, const v_f64 *lost, int stride)
{
    v_f64 a = sum[0], b = sum[stride], c = sum[2 * stride], d = sum[3 * stride];
#if KLCE_REAL_IS_F64
    v_f64 low_a = lost[0], low_b = lost[stride];
    ADD_KEEPING(v_f64, a, c, low_a);
    ADD_KEEPING(v_f64, b, d, low_b);
    ADD_KEEPING(v_f64, a, b, low_a);
    v_f64 rest = (low_a + lost[2 * stride]) + (low_b + lost[3 * stride]);
    return a + select_f64(eq_f64(rest, rest), rest, set_f64(0)); /* an infinite sum has lost nan */
#else
    return (void)lost, (a + c) + (b + d);
#endif
}

/* The sum of the four, to a tile's field. */
KLCE_INLINE void K(total_of_four)(const K(four_sums) *four, double *field)
{
    KLCE_UNROLL for (int h = 0; h < HALVES; h++)
    {
        const v_f64 *lost = NULL;
#if KLCE_REAL_IS_F64
        lost = four->lost[0] + h;
#endif
        store_f64(field + h * KLCE_WIDTH_f64, K(four_added)(four->sum[0] + h, lost, HALVES));
    }
}

/* The sum of n columns, one for each of the first lanes, in float64 and in the order of K(total);
 * of column[j] + more[j], where `more` is given. */
KLCE_INLINE void K(sum_column_pairs)(const K(v) *column, const K(v) *more, ptrdiff_t n,
                                     double *field)
{
    K(four_sums) four = {0};
    K(add_columns)(&four, column, more, KLCE_LESSER(n, LANES));
    K(total_of_four)(&four, field);
}

static KLCE_NOINLINE void K(sum_columns)(const K(v) *column, ptrdiff_t n, double *field)
{
    K(sum_column_pairs)(column, NULL, n, field);
}

/* Of all n columns: those beyond the lanes are added to the first. */
static KLCE_NOINLINE void K(sum_all_columns)(const K(v) *column, ptrdiff_t n, double *field)
{
    K(v) sum[LANES];
    if (n > LANES)
        EACH_GROUP(group, n) EACH_LANE(l, group, n)
        {
            sum[l] = group ? sum[l] + column[group + l] : column[l];
        }
    K(sum_columns)(n > LANES ? sum : column, n, field);
}

/* The sums of a tile's rows, which it loads. */
KLCE_INLINE void K(sum_few)(const klce_call *call, int k, ptrdiff_t row, K(tile) *tile,
                            double *field)
{
    K(load_tile)(call, k, row, tile);
    for (int w = 0; w < KLCE_TILE / WIDTH; w++)
        K(sum_all_columns)(tile->column[w], call->n, field + w * WIDTH);
}

/* As sum_columns, of columns that are doubles, of KLCE_WIDTH_f64 rows. */
KLCE_INLINE void K(sum_double_columns)(const v_f64 *column, ptrdiff_t n, double *field)
{
#if KLCE_REAL_IS_F64
    K(sum_columns)(column, n, field);
#else
    v_f64 zero = set_f64(0), four[4] = {zero, zero, zero, zero};
    for (ptrdiff_t j = 0; j < KLCE_LESSER(n, LANES); j++)
        four[j % 4] = four[j % 4] + column[j];
    store_f64(field, K(four_added)(four, NULL, 1));
#endif
}
