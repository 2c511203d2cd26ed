/* What a row is asked for beside its sums: the largest elements, the second of them, the first of
 * the maximum, the rank of one.  Each is a sweep over what is in cache. */

/* The largest elements so far and where they stand, in order; of equal ones the first comes first.
 * nan is never among them. */
typedef struct {
    ptrdiff_t size, filled;
    real value[KLCE_TOP];
    int64_t index[KLCE_TOP];
} K(top);

KLCE_INLINE void K(top_insert)(K(top) *top, real value, int64_t index)
{
    ptrdiff_t j = top->filled < top->size ? top->filled++ : top->size - 1;
    for (; j > 0 && top->value[j - 1] < value; j--) {
        top->value[j] = top->value[j - 1];
        top->index[j] = top->index[j - 1];
    }
    top->value[j] = value;
    top->index[j] = index;
}

/* Adds n elements, the first of which is number `low` of the row.  Once the top is full, a group is
 * compared with its last as a whole, and a look at each element is rare. */
static KLCE_NOINLINE void K(top_add)(K(top) *top, const elem *x, ptrdiff_t n, ptrdiff_t low)
{
    ptrdiff_t i = 0;
    K(v) group[VECTORS];
    if (!top->size)
        return;
    for (; i < n && top->filled < top->size; i++)
        if (!isnan(K(value)(x[i])))
            K(top_insert)(top, K(value)(x[i]), low + i);
    for (; i < n; i += LANES) {
        K(v) last = K(set)(top->value[top->size - 1]);
        K(load_group)(x + i, n - i, (real)-INFINITY, group);
        K(m) hit = K(lt)(last, group[0]);
        KLCE_UNROLL for (int v = 1; v < VECTORS; v++) hit = K(or)(hit, K(lt)(last, group[v]));
        if (K(any)(hit))
            for (ptrdiff_t j = i; j < KLCE_LESSER(i + LANES, n); j++)
                if (top->value[top->size - 1] < K(value)(x[j]))
                    K(top_insert)(top, K(value)(x[j]), low + j);
    }
}

/* The second largest element: the largest beside the first of the maximum, -inf if there is none.
 * Nan passes as any number. */
static KLCE_NOINLINE real K(second_of)(const elem *x, ptrdiff_t n)
{
    K(v) first[VECTORS], second[VECTORS], group[VECTORS];
    real largest[LANES], next[LANES], most = (real)-INFINITY, result = (real)-INFINITY;
    EACH_VECTOR(v) first[v] = second[v] = K(set)((real)-INFINITY);
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        K(load_group)(x + i, n - i, (real)-INFINITY, group);
        EACH_VECTOR(v)
        {
            second[v] = K(max)(K(min)(group[v], first[v]), second[v]);
            first[v] = K(max)(group[v], first[v]);
        }
    }
    EACH_VECTOR(v)
    {
        V(store)(largest + v * WIDTH, first[v]);
        V(store)(next + v * WIDTH, second[v]);
    }
    for (int i = 0; i < LANES; i++) {
        real lesser = largest[i] < most ? largest[i] : most;
        most = largest[i] < most ? most : largest[i];
        result = result < lesser ? lesser : result;
        result = result < next[i] ? next[i] : result;
    }
    return result;
}

/* How many of n elements, at most a segment, are not less than `value`; nan is not counted. */
_Static_assert(KLCE_SEGMENT <= 1 << 24, "a float32 holds the number of a segment's elements");
static KLCE_NOINLINE ptrdiff_t K(count_from)(const elem *x, ptrdiff_t n, real value)
{
    K(v) from = K(set)(value), one = K(set)(1), group[VECTORS], count[VECTORS];
    real lane[LANES];
    ptrdiff_t total = 0;
    EACH_VECTOR(v) count[v] = K(set)(0);
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        K(load_group)(x + i, n - i, (real)NAN, group);
        EACH_VECTOR(v) { count[v] = K(select)(K(le)(from, group[v]), count[v] + one, count[v]); }
    }
    EACH_VECTOR(v) V(store)(lane + v * WIDTH, count[v]);
    for (int i = 0; i < LANES; i++)
        total += (ptrdiff_t)lane[i];
    return total;
}

/* The first maximum of a row, or its first nan if there is one, is looked for when its state is
 * whole, in the one segment that holds it; field `best` of the state tells where that begins.  -1
 * for no classes. */
KLCE_INLINE ptrdiff_t K(argmax)(const elem *x, ptrdiff_t n, const double *state, int best)
{
    ptrdiff_t low = (ptrdiff_t)state[best * KLCE_TILE];
    ptrdiff_t length = KLCE_LESSER(n - low, KLCE_SEGMENT);
    return low + (isnan(state[FIELD(REST)])
                      ? K(first_nan)(x + low, length)
                      : K(first_equal)(x + low, length, (real)state[FIELD(MAX)]));
}

/* The second largest of a row, when its state is whole: in the segment of the maximum, or the
 * largest of the others, which field `second` holds. */
KLCE_INLINE void K(add_second)(const elem *x, ptrdiff_t n, double *state, int second, int best)
{
    ptrdiff_t low = (ptrdiff_t)state[best * KLCE_TILE];
    double beside = K(second_of)(x + low, KLCE_LESSER(n - low, KLCE_SEGMENT));
    state[second * KLCE_TILE] = fmax(state[second * KLCE_TILE], beside);
}

/* Joins a later segment: of a state that holds MAX, and nan in REST where the segment holds one.
 * Before the maxima are joined. */
KLCE_INLINE void K(argmax_join)(double *into, const double *from, int best)
{
    int had_nan = isnan(into[FIELD(REST)]), has_nan = isnan(from[FIELD(REST)]);
    int later = has_nan || from[FIELD(MAX)] > into[FIELD(MAX)];
    if (!had_nan && later)
        into[best * KLCE_TILE] = from[best * KLCE_TILE];
}
