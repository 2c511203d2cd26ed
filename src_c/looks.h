/* Looks at elements, without a sum: for the largest, the smallest, the first that equals a value
 * or is nan.
 *
 * Those at whole groups take 16-bit elements as they lie, without converting them: of numbers of
 * one sign the bits, as integers, are in order. */

#if KLCE_ELEM_BITS == 16 && KLCE_VECTOR_BYTES
enum { K(SHORTS) = LANES * 2 / KLCE_VECTOR_BYTES }; /* vectors of a group */

/* The largest of groups, so far: of numbers of no sign the one with the most as a signed integer,
 * and if there is none, of those with a sign the one with the least. */
typedef struct {
    shorts most, least;
} K(peak);

KLCE_INLINE K(peak) K(no_peak)(void)
{
    return (K(peak)){set_shorts(INT16_MIN), set_shorts(INT16_MAX)};
}

/* 2 instructions for half as many elements as a vector has bytes. */
KLCE_INLINE void K(raise_peak)(K(peak) *peak, const elem *x)
{
    KLCE_UNROLL for (int i = 0; i < K(SHORTS); i++)
    {
        shorts v = load_shorts((const char *)x + i * KLCE_VECTOR_BYTES);
        peak->most = max_shorts(v, peak->most);
        peak->least = min_shorts(v, peak->least);
    }
}

/* The peak of GROUPS groups. */
KLCE_INLINE K(peak) K(peak_of)(const elem *x)
{
    shorts first = load_shorts((const char *)x);
    K(peak) peak = {first, first};
    KLCE_UNROLL for (int i = 1; i < GROUPS * K(SHORTS); i++)
    {
        shorts v = load_shorts((const char *)x + i * KLCE_VECTOR_BYTES);
        peak.most = max_shorts(v, peak.most);
        peak.least = min_shorts(v, peak.least);
    }
    return peak;
}

KLCE_INLINE void K(join_peak)(K(peak) *into, const K(peak) *from)
{
    into->most = max_shorts(from->most, into->most);
    into->least = min_shorts(from->least, into->least);
}

/* nan, which lies beyond inf, where one may have hidden the largest. */
KLCE_INLINE real K(peak_value)(const K(peak) *peak)
{
    int bits = most_of_shorts(peak->most);
    return K(value)((elem){(uint16_t)(bits < 0 ? least_of_shorts(peak->least) : bits)});
}

/* What equals a value: of zero, both. */
typedef struct {
    real value;
    shorts one, other;
} K(sought);

KLCE_INLINE K(sought) K(sought_of)(real value)
{
    int bits = K(rounded)(value).bits;
    return (K(sought)){value, set_shorts((int16_t)bits),
                       set_shorts((int16_t)(bits ^ (value == 0) << 15))};
}

/* Whether one of the groups holds their largest, which is sought: by its sign, as a rule. */
KLCE_INLINE int K(peak_holds)(const K(peak) *peak, const K(sought) *sought)
{
    if (sought->value > 0)
        return either_short(peak->most, sought->one, sought->one);
    return either_short(peak->least, sought->one, sought->other) |
           either_short(peak->most, sought->one, sought->other);
}

KLCE_INLINE int K(group_holds)(const elem *x, const K(sought) *sought)
{
    int hit = 0;
    KLCE_UNROLL for (int i = 0; i < K(SHORTS); i++)
    {
        shorts v = load_shorts((const char *)x + i * KLCE_VECTOR_BYTES);
        hit |= either_short(v, sought->one, sought->other);
    }
    return hit;
}

#else
typedef struct {
    K(v) most;
} K(peak);

KLCE_INLINE K(peak) K(no_peak)(void) { return (K(peak)){K(set)((real)-INFINITY)}; }

KLCE_INLINE void K(raise_peak)(K(peak) *peak, const elem *x)
{
    EACH_VECTOR(v) peak->most = K(max)(K(load)(x + v * WIDTH), peak->most); /* nan is passed over */
}

/* The peak of GROUPS groups; anything where they hold a nan. */
KLCE_INLINE K(peak) K(peak_of)(const elem *x)
{
    K(peak) peak = {K(load)(x)};
    KLCE_UNROLL for (int v = 1; v < GROUPS * VECTORS; v++) peak.most =
        K(max)(peak.most, K(load)(x + v * WIDTH));
    return peak;
}

KLCE_INLINE void K(join_peak)(K(peak) *into, const K(peak) *from)
{
    into->most = K(max)(from->most, into->most);
}

KLCE_INLINE real K(peak_value)(const K(peak) *peak) { return K(hmax)(peak->most); }

typedef K(v) K(sought);

KLCE_INLINE K(sought) K(sought_of)(real value) { return K(set)(value); }

KLCE_INLINE int K(peak_holds)(const K(peak) *peak, const K(sought) *sought)
{
    return K(any)(K(eq)(peak->most, *sought));
}

KLCE_INLINE int K(group_holds)(const elem *x, const K(sought) *sought)
{
    K(m) hit = K(eq)(K(load)(x), *sought);
    KLCE_UNROLL for (int v = 1; v < VECTORS; v++) hit =
        K(or)(hit, K(eq)(K(load)(x + v * WIDTH), *sought));
    return K(any)(hit);
}
#endif

/* Which lanes of `count` vectors equal a value, a bit each, 64 at most. */
KLCE_INLINE uint64_t K(hits)(const K(v) *v, int count, K(v) value)
{
    uint64_t hits = 0;
    KLCE_UNROLL for (int i = 0; i < count; i++) hits |= (uint64_t)K(bits)(K(eq)(v[i], value))
                                                        << (i * WIDTH);
    return hits;
}

/* The first of `count` peaks, 32 at most, that holds what is sought; the last if none does.  No
 * branch hangs on it. */
KLCE_INLINE int K(first_holding)(const K(peak) *peaks, int count, const K(sought) *sought)
{
    uint32_t holding = (uint32_t)1 << (count - 1);
    for (int i = 0; i < count; i++)
        holding |= (uint32_t)K(peak_holds)(&peaks[i], sought) << i;
    return lowest_bit(holding);
}

/* The largest of n elements, nan passed over (-inf when there are none).  Eight independent chains,
 * since a maximum takes four cycles and two start in each. */
KLCE_INLINE real K(max_in_chains)(const elem *x, ptrdiff_t n)
{
    const K(v) none = K(set)((real)-INFINITY);
    K(v) most[8];
    ptrdiff_t i = 0;
    KLCE_UNROLL for (int c = 0; c < 8; c++) most[c] = none;
    for (; i + 8 * WIDTH <= n; i += 8 * WIDTH)
        KLCE_UNROLL for (int c = 0; c < 8; c++) most[c] =
            K(max)(K(load)(x + i + c * WIDTH), most[c]);
    for (; i < n; i += WIDTH) {
        int part = n - i < WIDTH ? (int)(n - i) : WIDTH;
        most[0] = K(max)(K(load_part)(x + i, part, none), most[0]);
    }
    for (int half = 4; half; half /= 2)
        for (int c = 0; c < half; c++)
            most[c] = K(max)(most[c], most[c + half]);
    return K(hmax)(most[0]);
}

/* The largest of n elements, of which a peak has seen the whole groups. */
KLCE_INLINE real K(largest)(const K(peak) *peak, const elem *x, ptrdiff_t n)
{
    real most = K(peak_value)(peak);
    ptrdiff_t seen = n - n % LANES;
    if (most != most)
        return K(max_in_chains)(x, n);
    if (seen < n) {
        K(v) group[VECTORS], most_of_rest = K(set)((real)-INFINITY);
        K(load_group)(x + seen, n - seen, (real)-INFINITY, group);
        EACH_VECTOR(v) most_of_rest = K(max)(group[v], most_of_rest);
        real rest = K(hmax)(most_of_rest);
        most = most > rest ? most : rest;
    }
    return most;
}

/* The largest of n elements, likewise. */
KLCE_INLINE real K(max_of)(const elem *x, ptrdiff_t n)
{
    if (sizeof(elem) == sizeof(real))
        return K(max_in_chains)(x, n);
    K(peak) peak = K(no_peak)();
    for (ptrdiff_t i = 0; i + LANES <= n; i += LANES)
        K(raise_peak)(&peak, x + i);
    return K(largest)(&peak, x, n);
}

/* The index of the first of n elements that equals `value`, which is not nan; -1 for none. */
KLCE_INLINE ptrdiff_t K(first_equal)(const elem *x, ptrdiff_t n, real value)
{
    K(v) want = K(set)(value);
    K(sought) sought = K(sought_of)(value);
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        if (K(group_holds)(x + i, &sought)) {
            int lane = 0; /* without a branch, which would be foretold by chance */
            KLCE_UNROLL for (int v = VECTORS - 1; v >= 0; v--)
            {
                K(m) hit = K(eq)(K(load)(x + i + v * WIDTH), want);
                lane = K(any)(hit) ? v * WIDTH + K(first)(hit) : lane;
            }
            return i + lane;
        }
    for (; i < n; i += WIDTH) {
        int part = n - i < WIDTH ? (int)(n - i) : WIDTH;
        K(m) hit = K(eq)(K(load_part)(x + i, part, K(set)(value == 0 ? 1 : 0)), want);
        if (K(any)(hit))
            return i + K(first)(hit);
    }
    return -1;
}

/* The index of the first nan of n elements; -1 for none. */
static KLCE_NOINLINE ptrdiff_t K(first_nan)(const elem *x, ptrdiff_t n)
{
    K(v) group[VECTORS];
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        K(load_group)(x + i, n - i, 0, group);
        K(m) common = K(eq)(group[0], group[0]);
        KLCE_UNROLL for (int v = 1; v < VECTORS; v++) common =
            K (and)(common, K(eq)(group[v], group[v]));
        if (K(any)(K(not)(common)))
            for (ptrdiff_t j = i; j < KLCE_LESSER(i + LANES, n); j++)
                if (isnan(K(value)(x[j])))
                    return j;
    }
    return -1;
}

/* Whether one of n elements is nan. */
KLCE_INLINE int K(holds_nan)(const elem *x, ptrdiff_t n)
{
#if KLCE_ELEM_BITS == 16 && KLCE_VECTOR_BYTES
    shorts size = set_shorts(INT16_MAX), most = set_shorts(0);
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        KLCE_UNROLL for (int k = 0; k < K(SHORTS); k++) most =
            max_shorts(load_shorts((const char *)(x + i) + k * KLCE_VECTOR_BYTES) & size, most);
    return most_of_shorts(most) > K(rounded)((real)INFINITY).bits ||
           K(first_nan)(x + i, n - i) >= 0;
#else
    return K(first_nan)(x, n) >= 0;
#endif
}
