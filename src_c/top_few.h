/* What rows of few classes are asked for beside their sums, side by side: to the bits of top.h. */

/* The first maximum of each row, or its first nan if there is one. */
KLCE_INLINE void K(argmax_few)(const K(tile) *tile, ptrdiff_t n, const double *state, double *best)
{
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        const K(v) *x = tile->column[i / WIDTH];
        K(v) max = K(load_field)(state + FIELD(MAX) + i), none = K(set)(-1), first = none;
        K(v) rest = K(load_field)(state + FIELD(REST) + i);
        K(m) is_number = K(eq)(rest, rest);
        for (ptrdiff_t j = n; j-- > 0;)
            first = K(select)(K(eq)(x[j], max), K(set)((real)j), first);
        if (K(any)(K(not)(is_number))) {
            K(v) first_nan = none;
            for (ptrdiff_t j = n; j-- > 0;)
                first_nan = K(select)(K(eq)(x[j], x[j]), first_nan, K(set)((real)j));
            first = K(select)(is_number, first, first_nan);
        }
        K(store_field)(best + i, first);
    }
}

/* The second largest of each row, -inf if there is none. */
KLCE_INLINE void K(second_few)(const K(tile) *tile, ptrdiff_t n, double *field)
{
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        const K(v) *x = tile->column[i / WIDTH];
        K(v) first = K(set)((real)-INFINITY), second = first;
        for (ptrdiff_t j = 0; j < n; j++) {
            second = K(max)(K(min)(x[j], first), second);
            first = K(max)(x[j], first);
        }
        K(store_field)(field + i, second);
    }
}

/* How many classes of each row are not less than its value; of a nan none is. */
KLCE_INLINE void K(count_from_few)(const K(tile) *tile, ptrdiff_t n, const double *values,
                                   double *field)
{
    K(v) one = K(set)(1);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        const K(v) *x = tile->column[i / WIDTH];
        K(v) from = K(load_field)(values + i), count = K(set)(0);
        for (ptrdiff_t j = 0; j < n; j++)
            count = K(select)(K(le)(from, x[j]), count + one, count);
        K(store_field)(field + i, count);
    }
}

/* The largest classes of each row and where they stand, a lane a row: in order, of equal ones the
 * first first.  Beyond TOP_FEW of them rows are cheaper one by one. */
#define TOP_FEW 32
typedef struct {
    K(v) value[TOP_FEW], index[TOP_FEW]; /* nan and -1 where there are no more */
} K(top_lanes);

/* Whether there are rows of nan among a tile's. */
KLCE_INLINE int K(has_nan_few)(const double *state)
{
    int has_nan = 0;
    EACH_STATE(i, KLCE_TILE)
    {
        v_f64 rest = K(state)(state, K(REST), i);
        has_nan |= any_f64(not_f64(eq_f64(rest, rest)));
    }
    return has_nan;
}

/* Of WIDTH rows without nan.  A class takes the place of the first that is less, which takes the
 * next one's, and so on. */
static KLCE_NOINLINE void K(top_of_columns)(const K(v) *x, ptrdiff_t n, ptrdiff_t size,
                                            K(top_lanes) *top)
{
    for (ptrdiff_t k = 0; k < size; k++) {
        top->value[k] = K(set)((real)NAN);
        top->index[k] = K(set)(-1);
    }
    for (ptrdiff_t j = 0; j < n; j++) {
        K(v) value = x[j], index = K(set)((real)j);
        if (!K(any)(K(not)(K(le)(value, top->value[size - 1]))))
            continue;
        for (ptrdiff_t k = 0; k < size; k++) {
            K(m) stays = K(le)(x[j], top->value[k]);
            K(v) less = K(select)(stays, value, top->value[k]);
            K(v) its = K(select)(stays, index, top->index[k]);
            top->value[k] = K(select)(stays, top->value[k], value);
            top->index[k] = K(select)(stays, top->index[k], index);
            value = less;
            index = its;
        }
    }
}
