/* The sum of a row's exponentials, in one read: what logsumexp, cross-entropy and the entropy of
 * logits all stand on.
 *
 * The maximum m, the first if there are several, stays out of the sum, so that
 * logsumexp = m/T + log1p(rest) loses nothing of a small rest.  A row is taken in blocks that stay
 * in L1, whose maximum is known before they are summed: the look for it goes along with the sum of
 * the block before, so that memory is asked for at an even pace.  Where a block's maximum exceeds
 * all before it, what was summed so far is closed and joins the rest as a row's next segment would.
 */

/* Squares are of distances times 2^SQUARE_BITS, which leaves room above the boosted exponentials:
 * at a temperature of 1e6, the highest, a float32 distance is up to 2^27, where the floor is. */
#define SQUARE_BITS (-8)

/* The partial sums of one group's lanes.  An exponential is (1 + t) 2^n and goes to two sums: that
 * of 2^n is exact but for what is far below, and that of t 2^n, less than half of it, rounds less
 * than half as much.  Rows of equal classes need that: their errors are all alike, and add up. */
typedef struct {
    K(v) sum[VECTORS], tail[VECTORS], weighted[VECTORS], squares[VECTORS], apart[VECTORS];
} K(expsum_parts);

KLCE_INLINE K(expsum_parts) K(no_parts)(void)
{
    K(expsum_parts) parts;
    EACH_VECTOR(v)
    {
        parts.sum[v] = parts.tail[v] = K(set)(0);
        parts.weighted[v] = parts.squares[v] = parts.apart[v] = K(set)(0);
    }
    return parts;
}

/* From where distances are measured: of the weighted sum the top,
 * of the squares a guess of the mean. */
typedef struct {
    K(v) top, unit, guess; /* 2^SQUARE_BITS, and the guess times minus that */
} K(centre);

KLCE_INLINE K(centre) K(centre_of)(real max, real origin, real guess)
{
    real unit = (real)1 / (1 << -SQUARE_BITS);
    /* Finite even while all is -inf. */
    return (K(centre)){K(set)(max == (real)-INFINITY ? 0 : max - origin), K(set)(unit),
                       K(set)(-guess * unit)};
}

/* The least distance to another row, which stands for all below and for nan: of a class whose x is
 * -inf.  Its exponential is the floor's, and their product less than a sum can show. */
#define LEAST_APART ((real) - 0x1p100)

/* Whole groups, or the first `count` classes of one, to as many vectors as `parts`: 17 instructions
 * a vector in float32 (load, subtract, clamp, 5 to reduce, 6 of the polynomial, 2 to add, and 1 of
 * the search for the maximum); with one moment 3 more, with two 6, with the distance to y 5. */
KLCE_INLINE void K(expsum_groups)(const K(expsum_context) *c, const K(measure) *from,
                                  const K(centre) *centre, const K(v) *x, const K(v) *y,
                                  K(expsum_parts) *into, int groups, ptrdiff_t count, int moments,
                                  int parts)
{
    int beside = KLCE_LESSER(groups * VECTORS, KLCE_BESIDE);
    KLCE_UNROLL for (int first = 0; first < groups * VECTORS; first += beside)
    {
        K(v) z[KLCE_BESIDE], t[KLCE_BESIDE], scale[KLCE_BESIDE];
        KLCE_UNROLL for (int i = 0; i < beside; i++) /* nan comes through */
            z[i] = K(max)(from->floor, x[first + i] - from->origin);
        K(exp_tails)(&c->e, z, from->magic, t, scale, beside);
        KLCE_UNROLL for (int i = 0; i < beside; i++)
        {
            int v = (first + i) % parts;
            if (count < LANES) /* not even the floor, so that tiles, without such lanes, agree */
                scale[i] = K(select)(K(holds_class)(first + i, count), scale[i], K(set)(0));
            into->sum[v] = into->sum[v] + scale[i];
            into->tail[v] = K(fma)(t[i], scale[i], into->tail[v]);
            if (!y && !moments)
                continue;
            K(v) e = K(fma)(t[i], scale[i], scale[i]);
            if (y) {
                K(v) apart = K(max)(x[first + i] - y[first + i], K(set)(LEAST_APART));
                into->apart[v] = K(fma)(e, apart, into->apart[v]);
            }
            if (moments) {
                into->weighted[v] = K(fma)(e, centre->top - z[i], into->weighted[v]);
                if (moments > 1) {
                    K(v) apart = K(fma)(z[i], centre->unit, centre->guess);
                    into->squares[v] = K(fma)(e * apart, apart, into->squares[v]);
                }
            }
        }
    }
}

/* The sums under one maximum. */
typedef struct {
    K(lanes) rest, weighted, squares, apart;
} K(expsum_lanes);

/* Those that will be added to: stores of the others would take as long as two vectors' sums. */
KLCE_INLINE void K(clear_expsum_lanes)(K(expsum_lanes) *lanes, int has_y, int moments)
{
    lanes->rest = K(no_lanes)();
    if (moments)
        lanes->weighted = K(no_lanes)();
    if (moments > 1)
        lanes->squares = K(no_lanes)();
    if (has_y)
        lanes->apart = K(no_lanes)();
}

/* Keeps those of a flush, of which only what is asked for is there. */
KLCE_INLINE void K(keep_parts)(K(expsum_parts) *kept, const K(expsum_parts) *parts, int has_y,
                               int moments)
{
    EACH_VECTOR(v)
    {
        kept->sum[v] = parts->sum[v];
        kept->tail[v] = parts->tail[v];
        if (moments)
            kept->weighted[v] = parts->weighted[v];
        if (moments > 1)
            kept->squares[v] = parts->squares[v];
        if (has_y)
            kept->apart[v] = parts->apart[v];
    }
}

/* Adds those of n classes, flush by flush: when all are there, since to convert one's waits for its
 * last exponential, and the next one's exponentials wait behind it. */
KLCE_INLINE void K(add_kept)(K(expsum_lanes) *lanes, const K(expsum_parts) *kept, ptrdiff_t n,
                             int has_y, int moments)
{
    for (; n > 0; n -= FLUSH, kept++) {
        K(add_lanes_at)(&lanes->rest, kept->sum);
        K(add_lanes_at)(&lanes->rest, kept->tail);
        if (moments)
            K(add_lanes_at)(&lanes->weighted, kept->weighted);
        if (moments > 1)
            K(add_lanes_at)(&lanes->squares, kept->squares);
        if (has_y)
            K(add_lanes_at)(&lanes->apart, kept->apart);
    }
}

/* The sum of exp * (distance of max - x from their mean)^2, boosted, of n elements whose other sums
 * stand in a state: by a sweep of its own, where the mean must be known first. */
static KLCE_NOINLINE double K(sum_squares)(const K(expsum_context) *c, const elem *x, ptrdiff_t n,
                                           const double *state)
{
    if (!(fabs(state[FIELD(MAX)]) < INFINITY))
        return 0;
    real origin = (real)state[FIELD(ORIGIN)], ref = (real)state[FIELD(REF)];
    K(measure) from = K(measure_from)(c, origin, ref, BOOST + 2 * SQUARE_BITS, FLOOR);
    K(v) top = K(set)((real)state[FIELD(MAX)] - origin);
    K(v) mean = K(set)((real)(state[FIELD(WEIGHTED)] / K(mass_at_reference)(c, state)));
    K(v) group[VECTORS], sum[VECTORS];
    K(lanes) squares = K(no_lanes)();
    for (ptrdiff_t i = 0; i < n; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, n);
        EACH_VECTOR(v) sum[v] = K(set)(0);
        for (ptrdiff_t j = i; j < end; j += LANES) {
            K(load_group)(x + j, end - j, (real)-INFINITY, group);
            EACH_VECTOR(v)
            {
                K(v) z = K(max)(from.floor, group[v] - from.origin);
                K(v) apart = (top - z) - mean, e = K(exp_measured)(c, &from, z);
                if (end - j < LANES)
                    e = K(select)(K(holds_class)(v, end - j), e, K(set)(0));
                sum[v] = K(fma)(e * apart, apart, sum[v]);
            }
        }
        K(add_lanes)(&squares, sum);
    }
    return ldexp(K(total)(&squares), -2 * SQUARE_BITS);
}

/* What is summed under one maximum. */
typedef struct {
    real max, origin, ref;
    real guess;      /* the mean of x - origin, as guessed */
    double apart;    /* the maximum's distance to y */
    ptrdiff_t start; /* of the first block */
} K(expsum_run);

/* Writes the sums of x[start] to x[stop - 1] as a state.  Squares about a guess of the mean are
 * turned into those about the mean; where the guess was off by more than the deviation, so that
 * more than a bit would cancel, they are summed anew. */
KLCE_INLINE void K(close_run)(const K(expsum_context) *c, const K(expsum_run) *run,
                              const K(expsum_lanes) *lanes, const elem *x, int has_y,
                              ptrdiff_t stop, double *state, int moments)
{
    state[FIELD(MAX)] = run->max;
    state[FIELD(ORIGIN)] = run->origin;
    state[FIELD(REF)] = run->ref;
    state[FIELD(REST)] = K(total)(&lanes->rest);
    state[FIELD(WEIGHTED)] = moments ? K(total)(&lanes->weighted) : 0;
    if (moments > 1) {
        double own = K(own_at_reference)(c, run->max, run->origin, run->ref);
        double mass = state[FIELD(REST)] + own;
        double guess = ((double)run->max - run->origin) - run->guess; /* of max - x */
        double about = ldexp(K(total)(&lanes->squares), -2 * SQUARE_BITS) + own * guess * guess;
        double apart = state[FIELD(WEIGHTED)] / mass - guess, lost = mass * apart * apart;
        state[FIELD(SQUARES)] = 2 * lost <= about
                                    ? about - lost
                                    : K(sum_squares)(c, x + run->start, stop - run->start, state);
    }
    if (has_y) {
        double own = K(own_at_reference)(c, run->max, run->origin, run->ref);
        state[FIELD(APART)] = K(total)(&lanes->apart) + own * run->apart;
    }
}

/* Of a row whose maximum is infinite the sums are no use: only nan among its elements matters. */
KLCE_INLINE void K(settle_infinite)(const elem *x, ptrdiff_t n, int has_y, double *state,
                                    int moments)
{
    if (fabs(state[FIELD(MAX)]) < INFINITY)
        return;
    K(leave_infinite)(K(first_nan)(x, n) >= 0, moments, state);
    if (has_y)
        state[FIELD(APART)] = 0;
    else if (moments > 1)
        state[FIELD(SQUARES)] = 0;
}

/* Guesses the mean of n elements: from the mass and the weighted sum of `known` of them that are
 * not the maximum, at the run's reference. */
KLCE_INLINE real K(guess_mean)(const K(expsum_context) *c, const K(expsum_run) *run, double mass,
                               double weighted, ptrdiff_t known, ptrdiff_t n)
{
    double own = K(own_at_reference)(c, run->max, run->origin, run->ref);
    double distance = weighted / (mass + own * ((double)known / (double)n));
    real top = run->max - run->origin;
    return distance < INFINITY ? (real)((double)top - distance) : top;
}

/* From what came before the run, of whose elements its maximum is the first to be larger. */
KLCE_INLINE real K(guess_from)(const K(expsum_context) *c, const K(expsum_run) *run,
                               const double *state, ptrdiff_t known, ptrdiff_t n)
{
    double factor = K(rescale)(c, state[FIELD(ORIGIN)], state[FIELD(REF)], run->origin, run->ref);
    double mass = factor * K(mass_at_reference)(c, state);
    double weighted = factor * state[FIELD(WEIGHTED)] + (run->max - state[FIELD(MAX)]) * mass;
    return K(guess_mean)(c, run, mass, weighted, known, n);
}

/* From a row's first elements and its first block's maximum, whose group is read from a copy. */
KLCE_INLINE real K(guess_from_sample)(const K(expsum_context) *c, const K(expsum_run) *run,
                                      const elem *x, ptrdiff_t skipped, const elem *without_max,
                                      ptrdiff_t n)
{
    K(measure) from = K(measure_from)(c, run->origin, run->ref, BOOST, FLOOR);
    K(centre) centre = K(centre_of)(run->max, run->origin, 0);
    K(expsum_parts) parts = K(no_parts)();
    K(expsum_lanes) lanes;
    K(v) group[VECTORS];
    K(clear_expsum_lanes)(&lanes, 0, 1);
    ptrdiff_t known = KLCE_LESSER(FLUSH, n);
    for (ptrdiff_t j = 0; j < known; j += LANES) {
        K(load_group)(j == skipped ? without_max : x + j, known - j, (real)-INFINITY, group);
        K(expsum_groups)(c, &from, &centre, group, NULL, &parts, 1, known - j, 1, VECTORS);
    }
    K(add_kept)(&lanes, &parts, known, 0, 1);
    return K(guess_mean)(c, run, K(total)(&lanes.rest), K(total)(&lanes.weighted), known, n);
}

/* Closes a run, and joins it to the row's state; from a row's first class on, it is that state. */
static KLCE_NOINLINE void K(end_run)(const K(expsum_context) *c, const K(expsum_run) *run,
                                     const K(expsum_lanes) *lanes, const elem *x, int has_y,
                                     ptrdiff_t stop, double *state, int moments)
{
    double room[KLCE_TILE * KLCE_FIELDS], *closed = run->start ? room : state;
    K(close_run)(c, run, lanes, x, has_y, stop, closed, moments);
    if (closed == state)
        return;
    if (has_y)
        K(apart_join)(c, state, closed, moments);
    else
        K(expsum_join)(c, state, closed, moments);
}

/* The place of a block's maximum. */
KLCE_INLINE ptrdiff_t K(first_maximum)(const elem *x, ptrdiff_t start, ptrdiff_t stop, real max)
{
    ptrdiff_t first = K(first_equal)(x + start, stop - start, max);
    return first < 0 ? start : start + first; /* gone: the array changes meanwhile */
}

/* Copies the group that holds the first maximum, without it; returns where that group begins. */
KLCE_INLINE ptrdiff_t K(copy_without)(const elem *x, ptrdiff_t start, ptrdiff_t stop,
                                      ptrdiff_t first, elem *copy)
{
    K(v) group[VECTORS];
    ptrdiff_t begin = first - (first - start) % LANES;
    K(load_group)(x + begin, stop - begin, (real)-INFINITY, group);
    K(v) lane = K(set)((real)(first - begin));
    EACH_VECTOR(v) /* by vectors, as they will be loaded */
    {
        K(m) is_first = K(eq)(K(numbers_from)(v * WIDTH), lane);
        K(store)(copy + v * WIDTH, K(select)(is_first, K(set)((real)-INFINITY), group[v]));
    }
    return begin;
}

/* With y, another row, of no more than one moment.  With `behind`, the row before x, that is stored
 * along with it, in its `way`. */
KLCE_INLINE void K(expsum)(const K(expsum_context) *c, const elem *x, const elem *y, ptrdiff_t n,
                           double *state, int moments, K(log_row) *behind, K(row_way) way)
{
    enum { M = FIELD(MAX), S = FIELD(REST), O = FIELD(ORIGIN) };
    enum { N = FIELD(REF), B = FIELD(WEIGHTED), Q = FIELD(SQUARES), A = FIELD(APART) };
    K(expsum_run) run = {.max = (real)-INFINITY};
    elem without_max[LANES];
    K(expsum_parts) kept[BLOCK / FLUSH];
    K(expsum_lanes) lanes;
    K(clear_expsum_lanes)(&lanes, y != NULL, moments);
    K(measure) from = K(measure_from)(c, run.origin, run.ref, BOOST, FLOOR);
    K(v) group[GROUPS * VECTORS], y_group[GROUPS * VECTORS];
    real block_max = K(max_of)(x, KLCE_LESSER(BLOCK, n));
    state[M] = -INFINITY;
    state[S] = state[O] = state[N] = state[B] = 0;
    if (y)
        state[A] = 0;
    else if (moments > 1)
        state[Q] = 0;

    for (ptrdiff_t start = 0; start < n; start += BLOCK) {
        ptrdiff_t stop = KLCE_LESSER(start + BLOCK, n), skipped = -1;
        if (block_max > run.max) {
            if (start) {
                K(end_run)(c, &run, &lanes, x, y != NULL, start, state, moments);
                K(clear_expsum_lanes)(&lanes, y != NULL, moments);
            }
            run.max = block_max;
            run.start = start;
            K(reference_of)(c, run.max, &run.origin, &run.ref);
            from = K(measure_from)(c, run.origin, run.ref, BOOST, FLOOR);
            ptrdiff_t first = K(first_maximum)(x, start, stop, run.max);
            skipped = K(copy_without)(x, start, stop, first, without_max);
            if (y)
                run.apart = (double)run.max - (double)K(value)(y[first]);
            if (moments > 1)
                run.guess = start ? K(guess_from)(c, &run, state, start, n)
                                  : K(guess_from_sample)(c, &run, x, skipped, without_max, n);
        }
        K(centre) centre = K(centre_of)(run.max, run.origin, run.guess);
        ptrdiff_t next_stop = KLCE_LESSER(stop + BLOCK, n);
        K(peak) next_peak = K(no_peak)();
        for (ptrdiff_t i = start; i < stop; i += FLUSH) {
            ptrdiff_t end = KLCE_LESSER(i + FLUSH, stop), j = i;
            K(expsum_parts) parts = K(no_parts)();
            for (; j + GROUPS * LANES <= end; j += GROUPS * LANES) {
                KLCE_UNROLL for (ptrdiff_t g = 0, k = j; g < GROUPS; g++, k += LANES)
                {
                    if (k + BLOCK + LANES <= next_stop)
                        K(raise_peak)(&next_peak, x + k + BLOCK);
                    K(prefetch_group)(x + k);
                    K(load_group)(k == skipped ? without_max : x + k, LANES, 0,
                                  group + g * VECTORS);
                    if (y)
                        K(load_group)(y + k, LANES, 0, y_group + g * VECTORS);
                }
                K(expsum_groups)(c, &from, &centre, group, y ? y_group : NULL, &parts, GROUPS,
                                 LANES, moments, VECTORS);
                if (behind)
                    K(put_logs_along)(behind, j, LANES, GROUPS, way);
            }
            for (; j < end; j += LANES) {
                K(load_group)(j == skipped ? without_max : x + j, end - j, (real)-INFINITY, group);
                if (y)
                    K(load_group)(y + j, end - j, 0, y_group);
                K(expsum_groups)(c, &from, &centre, group, y ? y_group : NULL, &parts, 1, end - j,
                                 moments, VECTORS);
                if (behind)
                    K(put_logs_along)(behind, j, end - j, 1, way);
            }
            K(keep_parts)(&kept[(i - start) / FLUSH], &parts, y != NULL, moments);
        }
        K(add_kept)(&lanes, kept, stop - start, y != NULL, moments);
        if (next_stop > stop)
            block_max = K(largest)(&next_peak, x + stop, next_stop - stop);
    }
    K(end_run)(c, &run, &lanes, x, y != NULL, n, state, moments);
    K(settle_infinite)(x, n, y != NULL, state, moments);
}

/* A row of at most FEW classes: what expsum_few leaves of a tile, to the bit. */
KLCE_INLINE void K(expsum_short)(const K(expsum_context) *c, const elem *x, ptrdiff_t n,
                                 double *state, int moments)
{
    real max = K(max_of)(x, n), origin, ref;
    K(reference_of)(c, max, &origin, &ref);
    const K(measure) from = K(measure_from)(c, origin, ref, BOOST, FLOOR);
    const K(centre) centre = K(centre_of)(max, origin, 0);
    elem without_max[LANES];
    ptrdiff_t skipped = K(copy_without)(x, 0, n, K(first_maximum)(x, 0, n, max), without_max);
    K(quad_sums) rest = {0}, weighted = {0};
    K(v) group[VECTORS];
    for (ptrdiff_t j = 0, end; j < n; j = end) {
        end = KLCE_LESSER(j + EXP_FLUSH, n);
        K(expsum_parts) parts = K(no_parts)();
        for (; j < end; j += LANES) {
            K(load_group)(j == skipped ? without_max : x + j, end - j, (real)-INFINITY, group);
            K(expsum_groups)(c, &from, &centre, group, NULL, &parts, 1, end - j, moments,
                             EXP_LANES / WIDTH);
        }
        K(add_quads)(&rest, parts.sum, parts.tail, EXP_LANES);
        if (moments)
            K(add_quads)(&weighted, parts.weighted, NULL, EXP_LANES);
    }
    state[FIELD(MAX)] = max;
    state[FIELD(ORIGIN)] = origin;
    state[FIELD(REF)] = ref;
    state[FIELD(REST)] = K(total_of_quads)(&rest);
    state[FIELD(WEIGHTED)] = moments ? K(total_of_quads)(&weighted) : 0;
    K(settle_infinite)(x, n, 0, state, moments);
}

/* The sweeps that ops use, each compiled once. */
static KLCE_NOINLINE void K(sum_exp)(const K(expsum_context) *c, const elem *x, ptrdiff_t n,
                                     double *state)
{
    if (n <= FEW)
        K(expsum_short)(c, x, n, state, 0);
    else
        K(expsum)(c, x, NULL, n, state, 0, NULL, K(NO_ROW));
}

static KLCE_NOINLINE void K(sum_exp_to_cache)(const K(expsum_context) *c, const elem *x,
                                              ptrdiff_t n, double *state, const K(log_row) *behind)
{
    K(log_row) own = *behind; /* what is stored might be it, for all that the compiler knows */
    K(expsum)(c, x, NULL, n, state, 0, &own, K(TO_CACHE));
}

static KLCE_NOINLINE void K(sum_exp_past_caches)(const K(expsum_context) *c, const elem *x,
                                                 ptrdiff_t n, double *state,
                                                 const K(log_row) *behind)
{
    K(log_row) own = *behind;
    K(expsum)(c, x, NULL, n, state, 0, &own, K(PAST_CACHES));
}

static KLCE_NOINLINE void K(sum_exp_and_weighted)(const K(expsum_context) *c, const elem *x,
                                                  ptrdiff_t n, double *state)
{
    if (n <= FEW)
        K(expsum_short)(c, x, n, state, 1);
    else
        K(expsum)(c, x, NULL, n, state, 1, NULL, K(NO_ROW));
}

static KLCE_NOINLINE void K(sum_exp_and_squares)(const K(expsum_context) *c, const elem *x,
                                                 ptrdiff_t n, double *state)
{
    K(expsum)(c, x, NULL, n, state, 2, NULL, K(NO_ROW));
}

static KLCE_NOINLINE void K(sum_exp_and_apart)(const K(expsum_context) *c, const elem *x,
                                               const elem *y, ptrdiff_t n, double *state)
{
    K(expsum)(c, x, y, n, state, 0, NULL, K(NO_ROW));
}

static KLCE_NOINLINE void K(sum_exp_weighted_and_apart)(const K(expsum_context) *c, const elem *x,
                                                        const elem *y, ptrdiff_t n, double *state)
{
    K(expsum)(c, x, y, n, state, 1, NULL, K(NO_ROW));
}
