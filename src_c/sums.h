/* Sums over a row: vectors of partial sums, flushed every FLUSH elements into LANES sums in
 * float64, and those added up in one fixed order. */

typedef struct {
    v_f64 high[DOUBLES];
#if KLCE_REAL_IS_F64
    v_f64 low[DOUBLES]; /* what rounding took from high */
#endif
} K(lanes);

KLCE_INLINE K(lanes) K(no_lanes)(void)
{
    K(lanes) lanes;
    KLCE_UNROLL for (int i = 0; i < DOUBLES; i++)
    {
        lanes.high[i] = set_f64(0);
#if KLCE_REAL_IS_F64
        lanes.low[i] = set_f64(0);
#endif
    }
    return lanes;
}

/* lanes += sums.  In float32 the widened sum is exact to 2^-29 of a unit; in float64 the rounding
 * error of each addition is kept (Knuth's two-sum). */
KLCE_INLINE void K(add_lanes)(K(lanes) *lanes, const K(v) *sums)
{
    EACH_VECTOR(v)
    {
#if KLCE_REAL_IS_F64
        v_f64 a = lanes->high[v], b = sums[v], s = a + b, c = s - a;
        lanes->low[v] = lanes->low[v] + ((a - (s - c)) + (b - c));
        lanes->high[v] = s;
#elif KLCE_VECTOR_BYTES
        lanes->high[2 * v] = lanes->high[2 * v] + widen_low(sums[v]);
        lanes->high[2 * v + 1] = lanes->high[2 * v + 1] + widen_high(sums[v]);
#else
        lanes->high[v] = lanes->high[v] + (double)sums[v];
#endif
    }
}

/* The same of sums in memory, which are widened as they are loaded. */
KLCE_INLINE void K(add_lanes_at)(K(lanes) *lanes, const K(v) *sums)
{
#if KLCE_REAL_IS_F64 || !KLCE_VECTOR_BYTES
    K(add_lanes)(lanes, sums);
#else
    KLCE_UNROLL for (int i = 0; i < DOUBLES; i++) lanes->high[i] =
        lanes->high[i] + K(load_doubles)((const real *)sums + i * KLCE_WIDTH_f64);
#endif
}

/* A group as doubles. */
KLCE_INLINE void K(widen_group)(const K(v) *group, v_f64 *wide)
{
    EACH_VECTOR(v)
    {
#if KLCE_REAL_IS_F64 || !KLCE_VECTOR_BYTES
        wide[v] = group[v];
#else
        wide[2 * v] = widen_low(group[v]);
        wide[2 * v + 1] = widen_high(group[v]);
#endif
    }
}

/* lanes += sums that are doubles. */
KLCE_INLINE void K(add_wide)(K(lanes) *lanes, const v_f64 *sums)
{
#if KLCE_REAL_IS_F64
    K(add_lanes)(lanes, sums);
#else
    for (int i = 0; i < DOUBLES; i++)
        lanes->high[i] = lanes->high[i] + sums[i];
#endif
}

KLCE_INLINE void K(scale_lanes)(K(lanes) *lanes, double factor)
{
    KLCE_UNROLL for (int i = 0; i < DOUBLES; i++)
    {
        lanes->high[i] = lanes->high[i] * set_f64(factor);
#if KLCE_REAL_IS_F64
        lanes->low[i] = lanes->low[i] * set_f64(factor);
#endif
    }
}

/* into += factor * from */
KLCE_INLINE void K(add_scaled_lanes)(K(lanes) *into, const K(lanes) *from, double factor)
{
    K(lanes) scaled = *from;
    K(scale_lanes)(&scaled, factor);
    K(add_wide)(into, scaled.high);
#if KLCE_REAL_IS_F64
    KLCE_UNROLL for (int i = 0; i < DOUBLES; i++) into->low[i] = into->low[i] + scaled.low[i];
#endif
}

/* Four sums, of which the lanes of a row are added up: lane i is in sum i % 4. */
typedef struct {
    quad sum;
#if KLCE_REAL_IS_F64
    quad lost;
#endif
} K(quad_sums);

/* In float64 it is rounded once: where one lane is most of the sum, each addition to it would cost
 * as much as an exponential. */
KLCE_INLINE double K(total_of_quads)(const K(quad_sums) *of)
{
    double s0 = quad_part(of->sum, 0), s1 = quad_part(of->sum, 1);
    double s2 = quad_part(of->sum, 2), s3 = quad_part(of->sum, 3);
#if KLCE_REAL_IS_F64
    double lost0 = quad_part(of->lost, 0), lost1 = quad_part(of->lost, 1);
    ADD_KEEPING(double, s0, s2, lost0);
    ADD_KEEPING(double, s1, s3, lost1);
    ADD_KEEPING(double, s0, s1, lost0);
    double rest = (lost0 + quad_part(of->lost, 2)) + (lost1 + quad_part(of->lost, 3));
    return s0 + (rest == rest ? rest : 0); /* an infinite sum has lost nan */
#else
    return (s0 + s2) + (s1 + s3);
#endif
}

/* The sum of all lanes: lane i and lanes i + 4, i + 8, ... in turn, then those four.  Few enough to
 * stay in registers where rows lie side by side (few.h). */
KLCE_INLINE double K(total)(const K(lanes) *lanes)
{
    quad lane[LANES / 4];
    K(quad_sums) four;
    KLCE_UNROLL for (int i = 0; i < DOUBLES; i++)
        store_f64((double *)lane + i * KLCE_WIDTH_f64, lanes->high[i]);
    four.sum = lane[0];
#if KLCE_REAL_IS_F64
    quad low[LANES / 4];
    KLCE_UNROLL for (int i = 0; i < DOUBLES; i++)
        store_f64((double *)low + i * KLCE_WIDTH_f64, lanes->low[i]);
    four.lost = low[0];
    KLCE_UNROLL for (int i = 1; i < LANES / 4; i++)
    {
        quad_add_keeping(&four.sum, lane[i], &four.lost);
        four.lost = quad_add(four.lost, low[i]);
    }
#else
    KLCE_UNROLL for (int i = 1; i < LANES / 4; i++) four.sum = quad_add(four.sum, lane[i]);
#endif
    return K(total_of_quads)(&four);
}

/* Adds the `count` lanes of a flush of a row of few classes alone, as those of rows side by side
 * are added up (few.h): by four in turn.  lane[l] + more[l], where `more` is given. */
KLCE_INLINE void K(add_quads)(K(quad_sums) *into, const K(v) *lanes, const K(v) *more, int count)
{
    real lane[LANES], other[LANES];
    KLCE_UNROLL for (int v = 0; v < count / WIDTH; v++)
    {
        V(store)(lane + v * WIDTH, lanes[v]);
        if (more)
            V(store)(other + v * WIDTH, more[v]);
    }
    KLCE_UNROLL for (int l = 0; l < count; l += 4)
    {
        quad value = quad_of(lane[l], lane[l + 1], lane[l + 2], lane[l + 3]), added = {0};
        if (more)
            added = quad_of(other[l], other[l + 1], other[l + 2], other[l + 3]);
#if KLCE_REAL_IS_F64
        quad low = {0};
        if (more)
            quad_add_keeping(&value, added, &low);
        quad_add_keeping(&into->sum, value, &into->lost);
        into->lost = quad_add(into->lost, low);
#else
        into->sum = quad_add(into->sum, more ? quad_add(value, added) : value);
#endif
    }
}

/* The cache lines of a group, by their offsets. */
#define EACH_LINE(line)                                                                            \
    KLCE_UNROLL for (uintptr_t line = 0; line < LANES * sizeof(elem); line += 64)

/* Asks for a group that will be read, 16 KB on, which may lie beyond the array.  What computes for
 * longer than its operands take to arrive would otherwise wait for them first: the hardware's
 * prefetcher stops at each page, and its window holds less than a block's arithmetic.  Into L2: the
 * first level has 16 lines to wait for, and what is on its way from memory would keep them all. */
KLCE_INLINE void K(prefetch_group)(const elem *x)
{
    EACH_LINE(line) KLCE_PREFETCH_L2((void *)((uintptr_t)x + 16384 + line));
}

/* Asks for a group that will be stored, 2 KB on: a store waits for the rest of its line, and so do
 * all behind it. */
KLCE_INLINE void K(prefetch_stored)(const elem *y)
{
    EACH_LINE(line) KLCE_PREFETCH((void *)((uintptr_t)y + 2048 + line));
}

/* Asks for groups of two operands that one loop reads, with AVX-512 alone: on Zen 3, without it,
 * asking for both cost more than it gave.  Into L1: two streams from memory are faster so. */
KLCE_INLINE void K(prefetch_pair)(const elem *p, const elem *q, ptrdiff_t ahead)
{
#if KLCE_VECTOR_BYTES == 64
    uintptr_t offset = (uintptr_t)ahead * sizeof(elem);
    EACH_LINE(line)
    {
        KLCE_PREFETCH((void *)((uintptr_t)p + offset + line));
        KLCE_PREFETCH((void *)((uintptr_t)q + offset + line));
    }
#else
    (void)p, (void)q, (void)ahead;
#endif
}

/* Likewise, by a pass that finds its own rows in cache: for the rows of the tiles to come; where
 * rows are longer for the next ones, into L2, if that has room for them beside these.  Rows are
 * taken to follow one another; where they do not, what is asked for is of no use, and no harm. */
KLCE_INLINE void K(prefetch_later_pair)(const elem *p, const elem *q, ptrdiff_t n)
{
    enum { MOST = 1 << 18 }; /* bytes of a row */
    uintptr_t bytes = (uintptr_t)n * sizeof(elem);
    if (n < 2 * BLOCK)
        K(prefetch_pair)(p, q, 2 * BLOCK);
    else if (bytes <= MOST)
        EACH_LINE(line)
        {
            KLCE_PREFETCH_L2((void *)((uintptr_t)p + bytes + line));
            KLCE_PREFETCH_L2((void *)((uintptr_t)q + bytes + line));
        }
}

#undef EACH_LINE

/* The group that starts at x: all of it, or its first `count` elements and `fill`. */
KLCE_INLINE void K(load_group)(const elem *x, ptrdiff_t count, real fill, K(v) *group)
{
    if (count >= LANES) {
        EACH_VECTOR(v) group[v] = K(load)(x + v * WIDTH);
    } else {
#if KLCE_VECTOR_BYTES >= 32
        EACH_VECTOR(v)
        {
            ptrdiff_t left = count - v * WIDTH;
            int part = left < 0 ? 0 : left > WIDTH ? WIDTH : (int)left;
            group[v] = K(load_part)(x + (part ? v * WIDTH : 0), part, K(set)(fill));
        }
#else
        real lane[LANES];
        for (int i = 0; i < LANES; i++)
            lane[i] = i < count ? K(value)(x[i]) : fill;
        EACH_VECTOR(v) group[v] = V(load)(lane + v * WIDTH);
#endif
    }
}

/* first, first + 1, ... */
KLCE_INLINE K(v) K(numbers_from)(int first)
{
    real number[WIDTH];
    KLCE_UNROLL for (int i = 0; i < WIDTH; i++) number[i] = (real)(first + i);
    return V(load)(number);
}

/* Which lanes of a group's vector v hold one of the group's first `count` classes. */
KLCE_INLINE K(m) K(holds_class)(int v, ptrdiff_t count)
{
    return K(lt)(K(numbers_from)(v * WIDTH), K(set)((real)count));
}

KLCE_INLINE void K(store_group)(elem *y, ptrdiff_t count, const K(v) *group)
{
    if (count >= LANES) {
        EACH_VECTOR(v) K(store)(y + v * WIDTH, group[v]);
    } else {
#if KLCE_VECTOR_BYTES >= 32
        EACH_VECTOR(v)
        {
            ptrdiff_t left = count - v * WIDTH;
            int part = left < 0 ? 0 : left > WIDTH ? WIDTH : (int)left;
            K(store_part)(y + (part ? v * WIDTH : 0), part, group[v]);
        }
#else
        real lane[LANES];
        EACH_VECTOR(v) V(store)(lane + v * WIDTH, group[v]);
        for (int i = 0; i < count; i++)
            y[i] = K(rounded)(lane[i]);
#endif
    }
}
