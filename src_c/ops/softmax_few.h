/* softmax of rows of few classes: in tiles of columns, as they lie, or one alone.
 *
 * The sum of what is whole of their exponentials is exact.  The rests are added up in one order, so
 * that the bits are the same: of each LANES classes, class l and class l + HALF_LANES make a pair;
 * the pairs of an l are added from left to right, and these HALF_LANES sums by halves.
 */
enum { K(HALF_LANES) = LANES / 2 };

/* What a group of a row adds to the sums. */
typedef struct {
    K(v) whole, rest[VECTORS / 2];
} K(split_sums);

/* A group's first `count` classes, beside which the maximum stands, become their exponentials: 21
 * instructions a vector in float32 (subtract, clamp, 13 of the exponential, 1 to join it, 4 to
 * split it, and 1 to add). */
KLCE_INLINE K(split_sums) K(softmax_split_group)(const K(expsum_context) *c, const K(measure) *from,
                                                 K(v) *group, ptrdiff_t count)
{
    enum { BESIDE = KLCE_LESSER(VECTORS, KLCE_BESIDE), HALF = VECTORS / 2 };
    K(exp_pair) e[VECTORS];
    K(v) whole[VECTORS], rest[VECTORS];
    KLCE_UNROLL for (int v = 0; v < VECTORS; v += BESIDE)
        K(exps_lifted)(c, from, group + v, e + v, BESIDE);
    EACH_VECTOR(v)
    {
        group[v] = K(joined)(e[v]);
        K(split_exp)(e[v], group[v], &whole[v], &rest[v]);
        if (count < LANES) {
            K(m) is_class = K(holds_class)(v, count);
            whole[v] = K(select)(is_class, whole[v], K(set)(0));
            rest[v] = K(select)(is_class, rest[v], K(set)(0));
        }
    }
    K(split_sums) sums = {.whole = whole[0]};
    KLCE_UNROLL for (int v = 1; v < VECTORS; v++) sums.whole = sums.whole + whole[v];
    KLCE_UNROLL for (int v = 0; v < HALF; v++) sums.rest[v] = rest[v] + rest[v + HALF];
    return sums;
}

KLCE_INLINE void K(add_split)(K(split_sums) *into, const K(split_sums) *sums)
{
    into->whole = into->whole + sums->whole;
    KLCE_UNROLL for (int v = 0; v < VECTORS / 2; v++) into->rest[v] = into->rest[v] + sums->rest[v];
}

/* A row alone. */
static KLCE_NOINLINE void K(softmax_sum_short)(const klce_call *call, const elem *x, double *state,
                                               real *kept)
{
    const ptrdiff_t n = call->n;
    const K(measure) from = K(lifted_from)(call, state);
    K(v) group[VECTORS];
    K(split_sums) sums = {.whole = K(set)(0)};
    real whole[WIDTH], rest[K(HALF_LANES)];
    KLCE_UNROLL for (int v = 0; v < VECTORS / 2; v++) sums.rest[v] = K(set)(0);
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        K(load_group)(x + j, n - j, (real)state[FIELD(MAX)], group);
        const K(split_sums) own = K(softmax_split_group)(K(context)(call), &from, group, n - j);
        K(add_split)(&sums, &own);
        if (kept)
            V(store_group)(kept + j, n - j, group);
    }
    V(store)(whole, sums.whole);
    for (int l = 1; l < WIDTH; l++)
        whole[0] += whole[l];
    KLCE_UNROLL for (int v = 0; v < VECTORS / 2; v++) V(store)(rest + v * WIDTH, sums.rest[v]);
    for (int half = K(HALF_LANES) / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            rest[l] += rest[l + half];
    state[FIELD(SUM)] = (double)whole[0] + (double)rest[0];
}

/* Columns of WIDTH rows side by side, of the next `count` classes, four at most, become their
 * exponentials.  The rest of each is added to its own sum, or makes it. */
KLCE_INLINE void K(softmax_add_few)(const K(expsum_context) *c, const K(measure) *from, K(v) *e,
                                    int count, int makes, K(v) *whole, K(v) *rest)
{
    K(exp_pair) pair[KLCE_BESIDE];
    KLCE_UNROLL for (int k = 0; k < count; k += KLCE_LESSER(count, KLCE_BESIDE))
    {
        K(exps_lifted)(c, from, e + k, pair, KLCE_LESSER(count, KLCE_BESIDE));
        KLCE_UNROLL for (int i = 0; i < KLCE_LESSER(count, KLCE_BESIDE); i++)
        {
            K(v) own_whole, own_rest;
            e[k + i] = K(joined)(pair[i]);
            K(split_exp)(pair[i], e[k + i], &own_whole, &own_rest);
            whole[k + i] = whole[k + i] + own_whole;
            rest[k + i] = makes ? own_rest : rest[k + i] + own_rest;
        }
    }
}

/* The next four of n that are left, or as many. */
KLCE_INLINE void K(softmax_add_four)(const K(expsum_context) *c, const K(measure) *from, K(v) *e,
                                     ptrdiff_t n, int makes, K(v) *whole, K(v) *rest)
{
    if (n >= 4)
        K(softmax_add_few)(c, from, e, 4, makes, whole, rest);
    else
        KLCE_UNROLL for (int k = 0; k < 3; k++)
        {
            if (k < n)
                K(softmax_add_few)(c, from, e + k, 1, makes, whole + k, rest + k);
        }
}

/* The columns of WIDTH rows become their exponentials; their sums go to the state. */
KLCE_INLINE void K(softmax_sum_few)(const K(expsum_context) *c, K(v) *e, ptrdiff_t n, double *state)
{
    enum { HALF = K(HALF_LANES) };
    K(v) max = K(max_of_columns)(e, n, K(set)((real)-INFINITY));
    K(v) zero = K(set)(0), whole[4] = {zero, zero, zero, zero}, rest[HALF];
    const K(references) r = K(references_of)(c, max, LIFT, LOWEST);
    for (int l = 0; l < HALF; l += 4) {
        K(v) sum[4] = {zero, zero, zero, zero}, pair[4] = {zero, zero, zero, zero};
        for (ptrdiff_t j = l; j < n; j += LANES) {
            K(softmax_add_four)(c, &r.from, e + j, n - j, 1, whole, pair);
            if (j + HALF < n)
                K(softmax_add_four)(c, &r.from, e + j + HALF, n - j - HALF, 0, whole, pair);
            KLCE_UNROLL for (int k = 0; k < 4; k++) sum[k] = sum[k] + pair[k];
            KLCE_UNROLL for (int k = 0; k < 4; k++) pair[k] = zero;
        }
        KLCE_UNROLL for (int k = 0; k < 4; k++) rest[l + k] = sum[k];
    }
    whole[0] = (whole[0] + whole[2]) + (whole[1] + whole[3]);
    KLCE_UNROLL for (int half = HALF / 2; half; half /= 2)
        KLCE_UNROLL for (int l = 0; l < half; l++) rest[l] = rest[l] + rest[l + half];
    K(store_references)(max, &r, state);
    KLCE_UNROLL for (int h = 0; h < HALVES; h++) store_f64(
        state + FIELD(SUM) + h * KLCE_WIDTH_f64, K(doubles)(whole[0], h) + K(doubles)(rest[0], h));
}

static void K(softmax_few)(const klce_call *call, ptrdiff_t row)
{
    const K(expsum_context) *c = K(context)(call);
    const ptrdiff_t n = call->n;
    double state[KLCE_FIELDS * KLCE_TILE];
    K(tile) tile;
    K(prefetch_tile)(call, 2, row);
    K(load_tile)(call, 0, row, &tile);
    for (int i = 0; i < KLCE_TILE; i += WIDTH)
        K(softmax_sum_few)(c, tile.column[i / WIDTH], n, state + i);
    K(softmax_finish)(call, row, KLCE_TILE, state);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(v) *e = tile.column[i / WIDTH];
        const K(row_factors) factors = K(column_factors_of)(state + i);
        ptrdiff_t j = 0;
        for (; j + KLCE_BESIDE <= n; j += KLCE_BESIDE)
            K(divide_columns)(&factors, e + j, KLCE_BESIDE);
        for (; j < n; j++)
            K(divide_columns)(&factors, e + j, 1);
        K(store_columns)(call, 2, row + i, e);
    }
}

#if KLCE_VECTOR_BYTES >= 32
/* A tile of rows as they lie (few_rows.h). */
typedef struct {
    double state[KLCE_FIELDS * KLCE_TILE];
    real origin[KLCE_TILE], floor[KLCE_TILE], magic[KLCE_TILE];
    K(v) kept[KLCE_TILE * FEW / WIDTH]; /* the exponentials, group after group of a row */
    K(split_sums) sums[KLCE_TILE];
    K(v) least; /* of the exponentials */
    real plain_high[KLCE_TILE], plain_low[KLCE_TILE], lifted_high[KLCE_TILE], lifted_low[KLCE_TILE];
} K(softmax_rows);

/* The maxima, and what is measured from them. */
KLCE_INLINE void K(softmax_look_at_rows)(const klce_call *call, const K(expsum_context) *c,
                                         ptrdiff_t row, K(softmax_rows) *rows)
{
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(v) most[WIDTH];
        for (int k = 0; k < WIDTH; k++)
            most[k] = K(max_in_row)(K(row_in)(call, 0, row + i + k), call->n);
        K(v) max = K(max_across)(most);
        const K(references) r = K(references_of)(c, max, LIFT, LOWEST);
        K(store_references)(max, &r, rows->state + i);
        V(store)(rows->origin + i, r.from.origin);
        V(store)(rows->floor + i, r.from.floor);
        V(store)(rows->magic + i, r.from.magic);
    }
}

/* The exponentials and their sums, a group of all rows after another: the groups of one row in turn
 * would have the constants broadcast anew for each row. */
KLCE_INLINE void K(softmax_sum_rows)(const klce_call *call, const K(expsum_context) *c,
                                     ptrdiff_t row, K(softmax_rows) *rows)
{
    const ptrdiff_t vectors = call->n / WIDTH; /* of a row */
    K(v) group[VECTORS], least = K(set)(LIFTED_SMALL);
    for (ptrdiff_t j = 0; j < call->n; j += LANES) {
        K(v) *kept = rows->kept + j / WIDTH;
        for (int i = 0; i < KLCE_TILE; i++, kept += vectors) {
            const K(measure) from = {K(set)(rows->origin[i]), K(set)(rows->floor[i]),
                                     K(set)(rows->magic[i])};
            K(load_group)(K(row_in)(call, 0, row + i) + j, LANES, 0, group);
            const K(split_sums) own = K(softmax_split_group)(c, &from, group, LANES);
            if (j)
                K(add_split)(&rows->sums[i], &own);
            else
                rows->sums[i] = own;
            EACH_VECTOR(v)
            {
                kept[v] = group[v];
                least = K(min)(group[v], least);
            }
        }
    }
    rows->least = least;
}

/* The factors. */
KLCE_INLINE void K(softmax_finish_rows)(const klce_call *call, ptrdiff_t row, K(softmax_rows) *rows)
{
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(v) whole[WIDTH], rest[WIDTH];
        KLCE_UNROLL for (int k = 0; k < WIDTH; k++)
        {
            const K(split_sums) *own = &rows->sums[i + k];
            whole[k] = own->whole;
            rest[k] = own->rest[0];
            if (VECTORS > 2)
                rest[k] = rest[k] + own->rest[VECTORS / 4];
        }
        K(v) all = K(sum_across)(whole), left = K(sum_across)(rest);
        KLCE_UNROLL for (int h = 0; h < HALVES; h++)
            store_f64(rows->state + FIELD(SUM) + i + h * KLCE_WIDTH_f64,
                      K(doubles)(all, h) + K(doubles)(left, h));
    }
    K(softmax_finish)(call, row, KLCE_TILE, rows->state);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        const K(row_factors) factors = K(column_factors_of)(rows->state + i);
        V(store)(rows->plain_high + i, factors.plain.high);
        V(store)(rows->plain_low + i, factors.plain.low);
        V(store)(rows->lifted_high + i, factors.lifted.high);
        V(store)(rows->lifted_low + i, factors.lifted.low);
    }
}

/* The quotients; with `small`, some may be subnormal. */
KLCE_INLINE void K(softmax_put_rows)(const klce_call *call, ptrdiff_t row,
                                     const K(softmax_rows) *rows, int small)
{
    const K(v) *kept = rows->kept;
    for (int i = 0; i < KLCE_TILE; i++) {
        elem *y = K(row_out)(call, 2, row + i);
        const K(row_factors) factors = {
            {K(set)(rows->plain_high[i]), K(set)(rows->plain_low[i]), K(set)(1)},
            {K(set)(rows->lifted_high[i]), K(set)(rows->lifted_low[i]), K(set)(1 / (real)UNLIFT)}};
        for (ptrdiff_t j = 0; j < call->n; j += LANES, kept += VECTORS) {
            K(v) group[VECTORS];
            EACH_VECTOR(v) group[v] = small ? kept[v] : K(times)(kept[v], &factors.plain);
            if (small)
                K(divide_group)(&factors, group);
            K(store_group)(y + j, LANES, group);
        }
    }
}

static KLCE_NOINLINE void K(softmax_put)(const klce_call *call, ptrdiff_t row,
                                         const K(softmax_rows) *rows)
{
    if (K(any)(K(lt)(rows->least, K(set)(LIFTED_SMALL))))
        K(softmax_put_rows)(call, row, rows, 1);
    else
        K(softmax_put_rows)(call, row, rows, 0);
}

/* Whole tiles of rows.  What a tile's sums and factors wait for takes as long as its arithmetic: so
 * the one before it is stored, and the one after it is looked at, in between. */
static ptrdiff_t K(softmax_few_pipelined)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    /* A copy, see softmax_sum. */
    const K(expsum_context) context = *K(context)(call), *c = &context;
    K(softmax_rows) tile[2];
    ptrdiff_t row = low;
    int at = 0;
    if (!K(fill_groups)(call, 0) || K(in_columns)(call, 2) || high - low < KLCE_TILE)
        return low;
    K(softmax_look_at_rows)(call, c, row, &tile[0]);
    for (; row + KLCE_TILE <= high; row += KLCE_TILE, at ^= 1) {
        K(prefetch_tile)(call, 2, row);
        K(softmax_sum_rows)(call, c, row, &tile[at]);
        if (row > low)
            K(softmax_put)(call, row - KLCE_TILE, &tile[at ^ 1]);
        if (row + 2 * KLCE_TILE <= high)
            K(softmax_look_at_rows)(call, c, row + KLCE_TILE, &tile[at ^ 1]);
        K(softmax_finish_rows)(call, row, &tile[at]);
    }
    K(softmax_put)(call, row - KLCE_TILE, &tile[at ^ 1]);
    return row;
}
#define SOFTMAX_FEW_PIPELINED K(softmax_few_pipelined)
#else
#define SOFTMAX_FEW_PIPELINED NULL
#endif
