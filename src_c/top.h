/* What a row is asked for beside its sums: the largest elements, the second of them, the first of
 * the maximum, the rank of one.  Each is a sweep over what is in cache. */

/* The largest elements so far and where they stand, in order; of equal ones the first comes first.
 * nan is never among them. */
typedef struct {
    ptrdiff_t size, filled;
    real over; /* what an element has to exceed, be the top full or not */
    real value[KLCE_TOP];
    int64_t index[KLCE_TOP];
} K(top);

/* As many as are asked for, where there is room for them: what Python passes on is within it. */
KLCE_INLINE ptrdiff_t K(top_size)(int64_t wanted)
{
    return wanted < 0 ? 0 : wanted > KLCE_TOP ? KLCE_TOP : (ptrdiff_t)wanted;
}

KLCE_INLINE void K(top_insert)(K(top) *top, real value, int64_t index)
{
    ptrdiff_t j = top->filled < top->size ? top->filled++ : top->size - 1;
    for (; j > 0 && top->value[j - 1] < value; j--) {
        top->value[j] = top->value[j - 1];
        top->index[j] = top->index[j - 1];
    }
    top->value[j] = value;
    top->index[j] = index;
    if (top->filled == top->size)
        top->over = top->value[top->size - 1];
}

/* The largest of some groups, nan passed over: load and maximum, 2 instructions a vector. */
KLCE_INLINE K(v) K(most_of_groups)(const elem *x, int groups, K(v) start)
{
    K(v) group[VECTORS], most[VECTORS];
    EACH_VECTOR(v) most[v] = start;
    for (int g = 0; g < groups; g++) {
        K(load_group)(x + g * LANES, LANES, 0, group);
        EACH_VECTOR(v) most[v] = K(max)(group[v], most[v]);
    }
    KLCE_UNROLL for (int v = 1; v < VECTORS; v++) most[0] = K(max)(most[v], most[0]);
    return most[0];
}

/* Those of a group, or of the `count` elements that are left of it, that are among the largest. */
static KLCE_NOINLINE void K(top_add_group)(K(top) *top, const elem *x, ptrdiff_t count,
                                           int64_t first)
{
    K(v) group[VECTORS], over = K(set)(top->over);
    uint64_t larger = 0;
    K(load_group)(x, count, (real)-INFINITY, group);
    EACH_VECTOR(v) larger |= (uint64_t)K(bits)(K(lt)(over, group[v])) << (v * WIDTH);
    for (; larger; larger &= larger - 1) {
        int lane = lowest_bit(larger);
        if (top->over < K(value)(x[lane])) /* still */
            K(top_insert)(top, K(value)(x[lane]), first + lane);
    }
}

/* Adds the first of n elements to an empty top, by pieces; returns how many, 0 if they are too few,
 * or too many of them -inf or nan.
 *
 * In order of their places, k ln(n/k) elements are among the k largest so far, and nearly all are
 * pushed out again.  But k pieces have maxima that are not below the k-th largest of these, so that
 * no element below it is in the top: pieces without any are passed over. */
static KLCE_NOINLINE ptrdiff_t K(top_begin)(K(top) *top, const elem *x, ptrdiff_t n, ptrdiff_t low)
{
    enum { A_PLACE = 4 }; /* pieces; of more, fewer elements are looked at */
    const ptrdiff_t pieces = KLCE_LESSER(n / LANES, A_PLACE * top->size);
    real most[A_PLACE * KLCE_TOP], largest[KLCE_TOP]; /* of the pieces; of those, in order */
    if (pieces < 2 * top->size)
        return 0;
    for (ptrdiff_t j = 0; j < top->size; j++)
        largest[j] = (real)-INFINITY;
    const ptrdiff_t length = n / LANES / pieces * LANES;
    for (ptrdiff_t i = 0; i < pieces; i++) {
        K(v) none = K(set)((real)-INFINITY);
        most[i] = K(hmax)(K(most_of_groups)(x + i * length, (int)(length / LANES), none));
        if (!(largest[top->size - 1] < most[i]))
            continue;
        ptrdiff_t j = top->size - 1;
        for (; j > 0 && largest[j - 1] < most[i]; j--)
            largest[j] = largest[j - 1];
        largest[j] = most[i];
    }
    const real last = largest[top->size - 1];
    if (last == (real)-INFINITY)
        return 0;
    top->over = KLCE_REAL_IS_F64 ? (real)nextafter(last, -INFINITY)
                                 : (real)nextafterf((float)last, -INFINITY);
    for (ptrdiff_t i = 0; i < pieces; i++)
        for (ptrdiff_t j = i * length; top->over < most[i] && j < (i + 1) * length; j += LANES)
            K(top_add_group)(top, x + j, LANES, low + j);
    return pieces * length;
}

/* Adds n elements, the first of which is number `low` of the row.  Groups are compared by their
 * largest, and a look at one of them is rare. */
static KLCE_NOINLINE void K(top_add)(K(top) *top, const elem *x, ptrdiff_t n, ptrdiff_t low)
{
    enum { TOGETHER = 4 };
    if (!top->size)
        return;
    ptrdiff_t i = top->filled ? 0 : K(top_begin)(top, x, n, low);
    for (; i < n && top->filled < top->size; i++)
        if (!isnan(K(value)(x[i])))
            K(top_insert)(top, K(value)(x[i]), low + i);
    if (top->filled < top->size) /* all the others are nan */
        return;
    top->over = top->value[top->size - 1];
    for (; i + TOGETHER * LANES <= n; i += TOGETHER * LANES) {
        K(v) over = K(set)(top->over);
        if (K(any)(K(lt)(over, K(most_of_groups)(x + i, TOGETHER, over))))
            for (int g = 0; g < TOGETHER; g++)
                K(top_add_group)(top, x + i + g * LANES, LANES, low + i + g * LANES);
    }
    for (; i < n; i += LANES)
        K(top_add_group)(top, x + i, n - i, low + i);
}

/* The second largest element: the largest beside the first of the maximum, -inf if there is none.
 * Nan passes as any number.  Load, a minimum, two maxima: 4 instructions a vector. */
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

/* How many of n elements, at most a segment, are not less than `value`, which is no nan; nan is not
 * counted. */
#if KLCE_ELEM_BITS == 16 && KLCE_VECTOR_BYTES
_Static_assert(KLCE_SEGMENT / (KLCE_VECTOR_BYTES / 2) <= INT16_MAX, "a lane holds its count");

static KLCE_NOINLINE ptrdiff_t K(count_from)(const elem *x, ptrdiff_t n, real value)
{
    const int16_t inf = (int16_t)K(rounded)((real)INFINITY).bits; /* nan lies beyond */
    const int16_t bits = (int16_t)K(rounded)(value == 0 ? -(real)0 : value).bits;
    const int16_t from = (int16_t)(bits ^ (bits >> 15 & INT16_MAX));
    int16_t lane[KLCE_VECTOR_BYTES / 2];
    short_lanes count = {0};
    ptrdiff_t total = 0, i = 0;
    for (; i + LANES <= n; i += LANES)
        KLCE_UNROLL for (int k = 0; k < K(SHORTS); k++)
        {
            const char *at = (const char *)(x + i) + k * KLCE_VECTOR_BYTES;
            short_lanes v = places_of((short_lanes)load_shorts(at));
            count -= (v >= from) & (v <= inf); /* of lanes that hold -1 */
        }
    memcpy(lane, &count, sizeof lane);
    for (int l = 0; l < KLCE_VECTOR_BYTES / 2; l++)
        total += lane[l];
    for (; i < n; i++)
        total += K(value)(x[i]) >= value;
    return total;
}
#else
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
#endif

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
