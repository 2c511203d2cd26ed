/* The sum of a row's exponentials, in one read: what logsumexp, cross-entropy and the entropy of
 * logits all stand on.
 *
 * The maximum m, the first if there are several, stays out of the sum, so that
 * logsumexp = m/T + log1p(rest) loses nothing of a small rest.  A row is taken in blocks that stay
 * in L1, whose maximum is known before they are summed: the look for it goes along with the sum of
 * the block before, so that memory is asked for at an even pace.  Where a block's maximum exceeds
 * all before it, what was summed so far is closed and joins the rest as a row's next segment would.
 *
 * Exponentials are measured from a reference: an integer n_ref (that of the block's maximum) taken
 * from the exponent, after an origin was subtracted.  The origin is 0 while |m/T| is small enough
 * for the exponent of exp(x/T) itself; beyond, it is m, and x - m is exact for every x within half
 * of m, hence for all that matter.  Sums hold 2^BOOST times the exponentials, so that a rest down
 * to the smallest subnormal number is a normal one here; what lies below FLOOR (in powers of two
 * under the reference) adds about 2^(FLOOR + BOOST), less than any result can show.
 */
#if KLCE_REAL_IS_F64
#define BOOST 512
#define UNBOOST 0x1p-512
#define FLOOR (-1400)
#define DIRECT 4096 /* the largest |m/T| whose origin is 0 */
#else
#define BOOST 80
#define UNBOOST 0x1p-80
#define FLOOR (-188)
#define DIRECT 256
#endif

/* Squares are of distances times 2^SQUARE_BITS, which leaves room above the boosted exponentials:
 * at a temperature of 1e6 a distance is up to 2^27. */
#define SQUARE_BITS (-8)

/* The fields of a row's state. */
enum {
    K(MAX),      /* the maximum */
    K(REST),     /* the boosted sum of the others; nan if the row holds one */
    K(ORIGIN),   /* what the exponentials are measured from */
    K(REF),      /* the integer, likewise */
    K(WEIGHTED), /* the sum of exp * (max - x), or of exp * (x - y), boosted, if asked for */
    K(SQUARES),  /* the sum, the maximum's term too, of exp * (max - x - their mean)^2, likewise */
    /* Of rows of few classes with y, where WEIGHTED is the sum of exp * apart,
     * apart = (x - y) - CENTRE, the maximum's term too: */
    K(SIZES) = K(SQUARES), /* the sum of exp * |apart|, likewise */
    K(CENTRE)              /* the difference of the maxima, in `real`; 0 if one is infinite */
};
LAST_FIELD(CENTRE);

/* A call's constants: of the row's type, and in float64 for the states. */
typedef struct {
    K(exp_constants) e;
    exp_constants_f64 f;
    double t;
} K(expsum_context);

KLCE_INLINE void K(expsum_prepare)(klce_call *call, double temperature)
{
    K(expsum_context) context;
    context.e = K(exp_constants_of)(temperature);
    context.f = exp_constants_of_f64(temperature);
    context.t = temperature;
    _Static_assert(sizeof context <= sizeof call->context, "a call has room for the context");
    memcpy(call->context, &context, sizeof context);
}

/* Of ops whose operand 1 is the temperature. */
static void K(temperature_prepare)(klce_call *call)
{
    K(expsum_prepare)(call, *(const double *)call->arg[1]);
}

KLCE_INLINE const K(expsum_context) *K(context)(const klce_call *call)
{
    return (const K(expsum_context) *)call->context;
}

KLCE_INLINE void K(reference_of)(const K(expsum_context) *c, real m, real *origin, real *ref)
{
    real magic = K(KLCE_MAGIC);
    *origin = *ref = 0;
    if (!(fabs((double)m) < INFINITY))
        return;
    if ((m < 0 ? -m : m) > (real)(DIRECT * c->t))
        *origin = m;
    else
        *ref = (m * c->e.log2e + magic) - magic;
}

/* exp((x - origin)/T) * 2^(boost - ref), for z = x - origin clamped at the floor. */
typedef struct {
    K(v) origin, floor, magic;
} K(measure);

KLCE_INLINE K(measure)
    K(measure_of)(const K(expsum_context) *c, K(v) origin, K(v) ref, int boost, int floor)
{
    return (K(measure)){origin, (ref + K(set)(floor)) * K(set)(c->e.ln2_hi),
                        K(set)(K(KLCE_MAGIC) + (K(KLCE_BIAS) + boost)) - ref};
}

KLCE_INLINE K(measure)
    K(measure_from)(const K(expsum_context) *c, real origin, real ref, int boost, int floor)
{
    return K(measure_of)(c, K(set)(origin), K(set)(ref), boost, floor);
}

/* 14 instructions in float32 with the polynomial's constants in registers. */
KLCE_INLINE K(v) K(exp_measured)(const K(expsum_context) *c, const K(measure) *from, K(v) z)
{
    K(exp_parts) parts = K(exp_reduce)(&c->e, z, from->magic);
    return K(exp_mantissa)(&c->e, parts.r) * parts.scale;
}

/* The same by its tail, as a sum has it. */
KLCE_INLINE K(v) K(exp_by_tail)(const K(expsum_context) *c, const K(measure) *from, K(v) z)
{
    K(exp_parts) parts = K(exp_reduce)(&c->e, z, from->magic);
    return K(fma)(K(exp_tail)(&c->e, parts.r), parts.scale, parts.scale);
}

/* exp((from - to)/T), `from` and `to` being origin/T + ref*ln2: what a sum is multiplied by to be
 * measured from another reference.  Between equal origins a power of two. */
KLCE_INLINE double K(rescale)(const K(expsum_context) *c, double from_origin, double from_ref,
                              double to_origin, double to_ref)
{
    double step = from_ref - to_ref;
    if (from_origin == to_origin)
        return step < -1000 ? 0 : ldexp(1, (int)step);
    double z = fma(step, c->f.ln2_hi, from_origin - to_origin) + step * c->f.ln2_mid;
    double lane[KLCE_WIDTH_f64];
    store_f64(lane, exp_f64(&c->f, set_f64(z), c->t));
    return lane[0];
}

KLCE_INLINE int K(has_nan)(const elem *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        if (isnan(K(value)(x[i])))
            return 1;
    return 0;
}

/* The partial sums of one group's lanes.  An exponential is (1 + t) 2^n and goes to two sums: that
 * of 2^n is exact but for what is far below, and that of t 2^n, less than half of it, rounds less
 * than half as much.  Rows of equal classes need that: their errors are all alike, and add up. */
typedef struct {
    K(v) sum[VECTORS], tail[VECTORS], weighted[VECTORS], squares[VECTORS];
} K(expsum_parts);

KLCE_INLINE K(expsum_parts) K(no_parts)(void)
{
    K(expsum_parts) parts;
    EACH_VECTOR(v) parts.sum[v] = parts.tail[v] = parts.weighted[v] = parts.squares[v] = K(set)(0);
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

/* One group: 17 instructions a vector in float32 (load, subtract, clamp, 5 to reduce, 6 of the
 * polynomial, 2 to add, and 1 of the search for the maximum);
 * with one moment 3 more, with two 6, with the distance to y 5. */
KLCE_INLINE void K(expsum_group)(const K(expsum_context) *c, const K(measure) *from,
                                 const K(centre) *centre, const K(v) *x, const K(v) *y,
                                 K(expsum_parts) *into, int moments)
{
    EACH_VECTOR(v)
    {
        K(v) z = K(max)(from->floor, x[v] - from->origin); /* nan comes through */
        K(exp_parts) parts = K(exp_reduce)(&c->e, z, from->magic);
        K(v) t = K(exp_tail)(&c->e, parts.r);
        into->sum[v] = into->sum[v] + parts.scale;
        into->tail[v] = K(fma)(t, parts.scale, into->tail[v]);
        if (y) {
            K(v) e = K(fma)(t, parts.scale, parts.scale);
            K(v) apart = K(max)(x[v] - y[v], K(set)(LEAST_APART));
            into->weighted[v] = K(fma)(e, apart, into->weighted[v]);
        } else if (moments) {
            K(v) e = K(fma)(t, parts.scale, parts.scale);
            into->weighted[v] = K(fma)(e, centre->top - z, into->weighted[v]);
            if (moments > 1) {
                K(v) apart = K(fma)(z, centre->unit, centre->guess);
                into->squares[v] = K(fma)(e * apart, apart, into->squares[v]);
            }
        }
    }
}

/* The sums under one maximum. */
typedef struct {
    K(lanes) rest, weighted, squares;
} K(expsum_lanes);

KLCE_INLINE K(expsum_lanes) K(no_expsum_lanes)(void)
{
    return (K(expsum_lanes)){K(no_lanes)(), K(no_lanes)(), K(no_lanes)()};
}

KLCE_INLINE void K(add_parts)(K(expsum_lanes) *lanes, const K(expsum_parts) *parts, int moments)
{
    K(add_lanes)(&lanes->rest, parts->sum);
    K(add_lanes)(&lanes->rest, parts->tail);
    if (moments)
        K(add_lanes)(&lanes->weighted, parts->weighted);
    if (moments > 1)
        K(add_lanes)(&lanes->squares, parts->squares);
}

/* A maximum's own exponential at a reference, and a state's mass with it, boosted. */
KLCE_INLINE double K(own_at_reference)(const K(expsum_context) *c, double max, double origin,
                                       double ref)
{
    return ldexp(K(rescale)(c, max, 0, origin, ref), BOOST);
}

KLCE_INLINE double K(mass_at_reference)(const K(expsum_context) *c, const double *state)
{
    return state[FIELD(REST)] +
           K(own_at_reference)(c, state[FIELD(MAX)], state[FIELD(ORIGIN)], state[FIELD(REF)]);
}

/* Joins the squares of a later state; before its sums are joined. */
KLCE_INLINE void K(squares_join)(const K(expsum_context) *c, double *into, const double *from)
{
    enum { M = FIELD(MAX), O = FIELD(ORIGIN), N = FIELD(REF), Q = FIELD(SQUARES) };
    const double *low = from[M] > into[M] ? into : from, *high = low == into ? from : into;
    double squares = high[Q];
    if (fabs(low[M]) < INFINITY && fabs(high[M]) < INFINITY) {
        double factor = K(rescale)(c, low[O], low[N], high[O], high[N]);
        double low_mass = K(mass_at_reference)(c, low), high_mass = K(mass_at_reference)(c, high);
        double low_mean = low[FIELD(WEIGHTED)] / low_mass + (high[M] - low[M]);
        double apart = low_mean - high[FIELD(WEIGHTED)] / high_mass;
        double share = factor * low_mass / (factor * low_mass + high_mass);
        /* A state so far below that it weighs nothing may be at any distance. */
        if (factor > 0)
            squares += factor * low[Q] + high_mass * share * apart * apart;
    }
    into[Q] = squares;
}

/* Joins the state `from` to the state `into`; the loser's maximum joins its sum. */
KLCE_INLINE void K(expsum_join)(const K(expsum_context) *c, double *into, const double *from,
                                int moments)
{
    enum { M = FIELD(MAX), S = FIELD(REST), O = FIELD(ORIGIN) };
    enum { N = FIELD(REF), B = FIELD(WEIGHTED) };
    if (moments > 1)
        K(squares_join)(c, into, from);
    int from_wins = from[M] > into[M];
    const double *low = from_wins ? into : from, *high = from_wins ? from : into;
    double rest, weighted = 0;
    if (!(fabs(low[M]) < INFINITY) || !(fabs(high[M]) < INFINITY)) {
        rest = high[S] + (low[S] == low[S] ? 0 : NAN);
        if (moments)
            weighted = high[B];
    } else {
        /* Scaled before anything multiplies it: far below,
         * the factor is 0 and the distance huge. */
        double factor = K(rescale)(c, low[O], low[N], high[O], high[N]);
        double sum = factor * (low[S] + K(own_at_reference)(c, low[M], low[O], low[N]));
        rest = high[S] + sum;
        if (moments)
            weighted = high[B] + (factor * low[B] + (high[M] - low[M]) * sum);
    }
    double m = high[M], origin = high[O], ref = high[N];
    into[M] = m;
    into[S] = rest;
    into[O] = origin;
    into[N] = ref;
    if (moments)
        into[B] = weighted;
}

/* The same of states whose weighted sum is of exp * (x - y), the maximum's term too. */
KLCE_INLINE void K(apart_join)(const K(expsum_context) *c, double *into, const double *from)
{
    enum { M = FIELD(MAX), O = FIELD(ORIGIN), N = FIELD(REF), B = FIELD(WEIGHTED) };
    const double *low = from[M] > into[M] ? into : from, *high = low == into ? from : into;
    double weighted = high[B];
    if (fabs(low[M]) < INFINITY && fabs(high[M]) < INFINITY)
        weighted += K(rescale)(c, low[O], low[N], high[O], high[N]) * low[B];
    K(expsum_join)(c, into, from, 0);
    into[B] = weighted;
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
                K(v) apart = (top - z) - mean;
                sum[v] = K(fma)(K(exp_measured)(c, &from, z) * apart, apart, sum[v]);
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
                              const K(expsum_lanes) *lanes, const elem *x, ptrdiff_t stop,
                              double *state, int moments)
{
    state[FIELD(MAX)] = run->max;
    state[FIELD(ORIGIN)] = run->origin;
    state[FIELD(REF)] = run->ref;
    state[FIELD(REST)] = K(total)(&lanes->rest);
    if (moments)
        state[FIELD(WEIGHTED)] = K(total)(&lanes->weighted);
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
    K(expsum_lanes) lanes = K(no_expsum_lanes)();
    K(v) group[VECTORS];
    ptrdiff_t known = KLCE_LESSER(FLUSH, n);
    for (ptrdiff_t j = 0; j < known; j += LANES) {
        K(load_group)(j == skipped ? without_max : x + j, known - j, (real)-INFINITY, group);
        K(expsum_group)(c, &from, &centre, group, NULL, &parts, 1);
    }
    K(add_parts)(&lanes, &parts, 1);
    return K(guess_mean)(c, run, K(total)(&lanes.rest), K(total)(&lanes.weighted), known, n);
}

/* Closes a run, and joins it to the row's state. */
KLCE_INLINE void K(end_run)(const K(expsum_context) *c, const K(expsum_run) *run,
                            const K(expsum_lanes) *lanes, const elem *x, int has_y, ptrdiff_t stop,
                            double *state, int moments)
{
    double closed[KLCE_TILE * KLCE_FIELDS];
    K(close_run)(c, run, lanes, x, stop, closed, moments);
    if (has_y) {
        double own = K(own_at_reference)(c, run->max, run->origin, run->ref);
        closed[FIELD(WEIGHTED)] += own * run->apart;
        K(apart_join)(c, state, closed);
    } else {
        K(expsum_join)(c, state, closed, moments);
    }
}

/* With y, another row, the weighted sum is that of exp * (x - y), the maximum's term too. */
KLCE_INLINE void K(expsum)(const K(expsum_context) *c, const elem *x, const elem *y, ptrdiff_t n,
                           double *state, int moments)
{
    enum { M = FIELD(MAX), S = FIELD(REST), O = FIELD(ORIGIN) };
    enum { N = FIELD(REF), B = FIELD(WEIGHTED), Q = FIELD(SQUARES) };
    K(expsum_run) run = {.max = (real)-INFINITY};
    elem without_max[LANES];
    K(expsum_lanes) lanes = K(no_expsum_lanes)();
    K(measure) from = K(measure_from)(c, run.origin, run.ref, BOOST, FLOOR);
    K(v) group[VECTORS], y_group[VECTORS];
    real block_max = K(max_of)(x, KLCE_LESSER(BLOCK, n));
    state[M] = -INFINITY;
    state[S] = state[O] = state[N] = state[B] = 0;
    if (moments > 1)
        state[Q] = 0;

    for (ptrdiff_t start = 0; start < n; start += BLOCK) {
        ptrdiff_t stop = KLCE_LESSER(start + BLOCK, n), skipped = -1;
        if (block_max > run.max) {
            if (start) {
                K(end_run)(c, &run, &lanes, x, y != NULL, start, state, moments);
                lanes = K(no_expsum_lanes)();
            }
            run.max = block_max;
            run.start = start;
            K(reference_of)(c, run.max, &run.origin, &run.ref);
            from = K(measure_from)(c, run.origin, run.ref, BOOST, FLOOR);
            /* The maximum's group is read from a copy that lacks it. */
            ptrdiff_t first = start + K(first_equal)(x + start, stop - start, run.max);
            if (first < start) /* gone: the array changes meanwhile */
                first = start;
            skipped = first - (first - start) % LANES;
            K(load_group)(x + skipped, stop - skipped, (real)-INFINITY, group);
            EACH_VECTOR(v) K(store)(without_max + v * WIDTH, group[v]);
            without_max[first - skipped] = K(rounded)((real)-INFINITY);
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
            for (; j + LANES <= end; j += LANES) {
                if (j + BLOCK + LANES <= next_stop)
                    K(raise_peak)(&next_peak, x + j + BLOCK);
                K(prefetch_group)(x + j);
                K(load_group)(j == skipped ? without_max : x + j, LANES, 0, group);
                if (y)
                    K(load_group)(y + j, LANES, 0, y_group);
                K(expsum_group)(c, &from, &centre, group, y ? y_group : NULL, &parts, moments);
            }
            if (j < end) {
                K(load_group)(j == skipped ? without_max : x + j, end - j, (real)-INFINITY, group);
                if (y)
                    K(load_group)(y + j, end - j, 0, y_group);
                K(expsum_group)(c, &from, &centre, group, y ? y_group : NULL, &parts, moments);
            }
            K(add_parts)(&lanes, &parts, moments);
        }
        if (next_stop > stop)
            block_max = K(largest)(&next_peak, x + stop, next_stop - stop);
    }
    K(end_run)(c, &run, &lanes, x, y != NULL, n, state, moments);
    if (!(fabs(state[M]) < INFINITY)) {
        /* The sums are no use: only nan among the elements still matters. */
        state[S] = K(has_nan)(x, n) ? NAN : 0;
        if (moments)
            state[B] = 0;
        if (moments > 1)
            state[Q] = 0;
    }
}

/* The sweeps that ops use, each compiled once. */
static KLCE_NOINLINE void K(sum_exp)(const K(expsum_context) *c, const elem *x, ptrdiff_t n,
                                     double *state)
{
    K(expsum)(c, x, NULL, n, state, 0);
}

static KLCE_NOINLINE void K(sum_exp_and_weighted)(const K(expsum_context) *c, const elem *x,
                                                  ptrdiff_t n, double *state)
{
    K(expsum)(c, x, NULL, n, state, 1);
}

static KLCE_NOINLINE void K(sum_exp_and_squares)(const K(expsum_context) *c, const elem *x,
                                                 ptrdiff_t n, double *state)
{
    K(expsum)(c, x, NULL, n, state, 2);
}

static KLCE_NOINLINE void K(sum_exp_and_apart)(const K(expsum_context) *c, const elem *x,
                                               const elem *y, ptrdiff_t n, double *state)
{
    K(expsum)(c, x, y, n, state, 1);
}

/* Of rows of few classes, how far x is from another row y: (x - y) - centre, right to the last
 * place (Knuth's two-sum), and infinite where y is -inf and x is not.  10 instructions. */
KLCE_INLINE K(v) K(apart_of)(K(v) x, K(v) y, K(v) centre)
{
    K(v) s = x - y, t = s - x, least = K(set)(LEAST_APART);
    K(v) error = K(max)((x - (s - t)) - (y + t), least); /* nan of infinite ones is passed over */
    return K(max)((s - centre) + error, least);
}

/* The centre, the distance of the maxima: about it, distances are hardly larger than log(q/p).  0
 * where a maximum is infinite. */
KLCE_INLINE K(v) K(centre_apart)(K(v) x_max, K(v) y_max)
{
    K(v) centre = x_max - y_max;
    K(m) finite = K(lt)(K(max)(centre, -centre), K(set)((real)INFINITY));
    return K(select)(finite, centre, K(set)(0));
}

/* Whether a class of WIDTH rows is farther than `near` from the centre, but for a sixteenth that
 * x - y may round by; where none is, the sums of distances are no use (kl_logits.h).  Nor do they
 * pay for fewer classes than APART_CLASSES, of which some row of a tile lacks digits as a rule. */
#define APART_NEAR 0.3
enum { K(APART_CLASSES) = 4 };
KLCE_INLINE int K(are_apart)(const K(v) *x, const K(v) *y, ptrdiff_t n, K(v) centre, real near)
{
    real unit = KLCE_REAL_IS_F64 ? (real)0x1p-49 : (real)0x1p-20;
    if (K(any)(K(lt)(K(set)(near), K(max)(centre, -centre) * K(set)(unit))))
        return 1;
    for (ptrdiff_t j = 0; j < n; j++) {
        K(v) apart = (x[j] - y[j]) - centre;
        if (K(any)(K(lt)(K(set)(near), K(max)(apart, -apart))))
            return 1;
    }
    return 0;
}

/* WEIGHTED, SIZES and CENTRE of a row whose other sums stand in its state: by a sweep of its own,
 * for the rows that no tile takes. */
static KLCE_NOINLINE void K(sum_apart)(const K(expsum_context) *c, const elem *x, const elem *y,
                                       double y_max, ptrdiff_t n, double *state)
{
    K(measure) from =
        K(measure_from)(c, (real)state[FIELD(ORIGIN)], (real)state[FIELD(REF)], BOOST, FLOOR);
    K(v) centre = K(centre_apart)(K(set)((real)state[FIELD(MAX)]), K(set)((real)y_max));
    K(v) x_group[VECTORS], y_group[VECTORS], weighted[VECTORS], sizes[VECTORS];
    K(lanes) weighted_lanes = K(no_lanes)(), sizes_lanes = K(no_lanes)();
    real lane[WIDTH];
    EACH_VECTOR(v) weighted[v] = sizes[v] = K(set)(0);
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        K(load_group)(x + j, n - j, (real)NAN, x_group);
        K(load_group)(y + j, n - j, 0, y_group);
        EACH_VECTOR(v)
        {
            K(m) is_class = K(eq)(x_group[v], x_group[v]); /* what is nan has no sums anyway */
            K(v) z = K(max)(from.floor, x_group[v] - from.origin);
            K(v) e = K(select)(is_class, K(exp_by_tail)(c, &from, z), K(set)(0));
            K(v) apart = K(apart_of)(x_group[v], y_group[v], centre);
            weighted[v] = K(fma)(e, apart, weighted[v]);
            sizes[v] = K(fma)(e, K(max)(apart, -apart), sizes[v]);
        }
    }
    K(add_lanes)(&weighted_lanes, weighted);
    K(add_lanes)(&sizes_lanes, sizes);
    V(store)(lane, centre);
    state[FIELD(WEIGHTED)] = K(total)(&weighted_lanes);
    state[FIELD(SIZES)] = K(total)(&sizes_lanes);
    state[FIELD(CENTRE)] = (double)lane[0];
}

/* The references of WIDTH rows, by their maxima: as reference_of and measure_from, lane by lane. */
typedef struct {
    K(v) origin, ref;
    K(measure) from;
} K(references);

KLCE_INLINE K(references)
    K(references_of)(const K(expsum_context) *c, K(v) max, int boost, int floor)
{
    K(v) size = K(max)(max, -max), zero = K(set)(0);
    K(m) finite = K(lt)(size, K(set)((real)INFINITY));
    K(m) large = K(lt)(K(set)((real)(DIRECT * c->t)), size);
    K(v) magic = K(set)(K(KLCE_MAGIC));
    K(v) ref = (max * K(set)(c->e.log2e) + magic) - magic;
    K(references) r;
    r.origin = K(select)(finite, K(select)(large, max, zero), zero);
    r.ref = K(select)(finite, K(select)(large, zero, ref), zero);
    r.from = K(measure_of)(c, r.origin, r.ref, boost, floor);
    return r;
}

/* A tile of rows of few classes, which it loads: what expsum leaves in their states, to the bit;
 * unless labels are NULL, the values at them; and unless y is, what sum_apart leaves, y being the
 * tile of other rows and y_max their maxima: WEIGHTED is nan where all of WIDTH rows are near. */
KLCE_INLINE void K(expsum_few)(const klce_call *call, int operand, ptrdiff_t row, K(tile) *tile,
                               double *state, int moments, K(labels) *labels, const K(tile) *y_tile,
                               const double *y_max)
{
    const K(expsum_context) *c = K(context)(call);
    ptrdiff_t n = call->n;
    K(load_tile)(call, operand, row, tile);
    K(v) sum[LANES], tail[LANES], weighted[LANES], sizes[LANES], zero = K(set)(0);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        const K(v) *x = tile->column[i / WIDTH];
        const K(v) *y = y_tile ? y_tile->column[i / WIDTH] : NULL;
        K(v) max = K(max_of_columns)(x, n, K(set)((real)-INFINITY));
        K(references) r = K(references_of)(c, max, BOOST, FLOOR);
        K(v) top = max - r.origin, sought = max, at_label = K(set)((real)NAN);
        K(v) label = labels ? K(load_field)(labels->label + i) : zero;
        K(v) centre = y ? K(centre_apart)(max, K(load_field)(y_max + i)) : zero;
        int apart =
            y && n >= K(APART_CLASSES) &&K(are_apart)(x, y, n, centre, (real)(APART_NEAR * c->t));
        EACH_GROUP(group, n) EACH_LANE(l, group, n)
        {
            ptrdiff_t j = group + l;
            K(m) is_first = K(eq)(x[j], sought);
            K(v) z = K(max)(r.from.floor, x[j] - r.origin);
            if (labels)
                at_label = K(select)(K(eq)(label, K(set)((real)j)), x[j], at_label);
            sought = K(select)(is_first, K(set)((real)NAN), sought);
            K(exp_parts) parts = K(exp_reduce)(&c->e, z, r.from.magic);
            K(v) t = K(exp_tail)(&c->e, parts.r);
            K(v) scale = K(select)(is_first, zero, parts.scale);
            K(v) far = top - z, e = K(fma)(t, scale, scale);
            sum[l] = group ? sum[l] + scale : scale;
            tail[l] = group ? K(fma)(t, scale, tail[l]) : t * scale;
            if (moments)
                weighted[l] = group ? K(fma)(e, far, weighted[l]) : e * far;
            if (apart) {
                K(v) d = K(apart_of)(x[j], y[j], centre), size = K(max)(d, -d);
                K(v) whole = K(fma)(t, parts.scale, parts.scale);
                weighted[l] = group ? K(fma)(whole, d, weighted[l]) : whole * d;
                sizes[l] = group ? K(fma)(whole, size, sizes[l]) : whole * size;
            }
        }
        K(store_field)(state + FIELD(MAX) + i, max);
        K(store_field)(state + FIELD(ORIGIN) + i, r.origin);
        K(store_field)(state + FIELD(REF) + i, r.ref);
        K(sum_column_pairs)(sum, tail, n, state + FIELD(REST) + i);
        if (labels)
            K(store_field)(labels->value + i, at_label);
        if (moments || apart)
            K(sum_columns)(weighted, n, state + FIELD(WEIGHTED) + i);
        if (apart)
            K(sum_columns)(sizes, n, state + FIELD(SIZES) + i);
        else if (y)
            K(store_field)(state + FIELD(WEIGHTED) + i, K(set)((real)NAN));
        if (y)
            K(store_field)(state + FIELD(CENTRE) + i, centre);
        if (K(any)(K(eq)(K(max)(max, -max), K(set)((real)INFINITY)))) {
            K(v) nan = zero; /* where a row holds one */
            real found[WIDTH];
            for (ptrdiff_t j = 0; j < n; j++)
                nan = K(select)(K(eq)(x[j], x[j]), nan, x[j]);
            V(store)(found, nan);
            for (int k = i; k < i + WIDTH; k++)
                if (!(fabs(state[FIELD(MAX) + k]) < INFINITY)) {
                    state[FIELD(REST) + k] = isnan(found[k - i]) ? NAN : 0;
                    if (moments)
                        state[FIELD(WEIGHTED) + k] = 0;
                }
        }
    }
}

static KLCE_NOINLINE void K(sum_exp_few)(const klce_call *call, int operand, ptrdiff_t row,
                                         K(tile) *tile, double *state)
{
    K(expsum_few)(call, operand, row, tile, state, 0, NULL, NULL, NULL);
}

static KLCE_NOINLINE void K(sum_exp_and_weighted_few)(const klce_call *call, int operand,
                                                      ptrdiff_t row, K(tile) *tile, double *state)
{
    K(expsum_few)(call, operand, row, tile, state, 1, NULL, NULL, NULL);
}

/* Of operand 0, with its distances to the rows of a tile of maxima y_max. */
static KLCE_NOINLINE void K(sum_exp_and_apart_few)(const klce_call *call, ptrdiff_t row,
                                                   K(tile) *tile, const K(tile) *y,
                                                   const double *y_max, double *state)
{
    K(expsum_few)(call, 0, row, tile, state, 0, NULL, y, y_max);
}

/* Of operand 0, with the values at its labels. */
static KLCE_NOINLINE void K(sum_exp_at_labels_few)(const klce_call *call, ptrdiff_t row,
                                                   K(tile) *tile, double *state, K(labels) *labels)
{
    K(expsum_few)(call, 0, row, tile, state, 0, labels, NULL, NULL);
}

static void K(expsum_merge)(const klce_call *call, double *into, const double *from)
{
    K(expsum_join)(K(context)(call), into, from, 0);
}

/* exp((ref*T*ln2 + origin - max)/T) - 1, within [-0.3, 0.42]: what leads from the reference to the
 * maximum.  `low` is what rounding took from it, which float64 needs. */
typedef struct {
    v_f64 high, low;
} K(rounded_pair);

KLCE_INLINE K(rounded_pair)
    K(to_maximum_pair)(const K(expsum_context) *c, const double *state, int i)
{
    v_f64 max = K(state)(state, K(MAX), i), ref = K(state)(state, K(REF), i);
    v_f64 exact = fma_f64(ref, set_f64(c->f.ln2_hi), K(state)(state, K(ORIGIN), i) - max);
    v_f64 z = fma_f64(ref, set_f64(c->f.ln2_mid), exact);
    v_f64 infinite = set_f64(INFINITY), zero = set_f64(0);
    m_f64 finite = and_f64(lt_f64(max, infinite), lt_f64(-infinite, max));
    v_f64 slope = fma_f64(K(exp_poly_for)(&c->f, z), z, set_f64(c->f.c1)), step = slope * z;
    v_f64 low = fma_f64(slope, z, -step) +
                fma_f64(ref, set_f64(c->f.ln2_mid), exact - z) * set_f64(c->f.c1);
    return (K(rounded_pair)){select_f64(finite, step, zero), select_f64(finite, low, zero)};
}

KLCE_INLINE v_f64 K(to_maximum)(const K(expsum_context) *c, const double *state, int i)
{
    return K(to_maximum_pair)(c, state, i).high;
}

/* A finite boosted sum as one of exp((x - max)/T) and so on.  BOOST is taken off last: only there
 * may the product go subnormal. */
KLCE_INLINE v_f64 K(at_maximum)(const K(expsum_context) *c, const double *state, int field, int i)
{
    v_f64 sum = K(state)(state, field, i);
    return fma_f64(sum, K(to_maximum)(c, state, i), sum) * set_f64(UNBOOST);
}

KLCE_INLINE K(rounded_pair)
    K(at_maximum_pair)(const K(expsum_context) *c, const double *state, int field, int i)
{
    K(rounded_pair) step = K(to_maximum_pair)(c, state, i);
    v_f64 sum = K(state)(state, field, i), high = fma_f64(sum, step.high, sum);
    v_f64 low = fma_f64(sum, step.low, fma_f64(sum, step.high, sum - high));
    v_f64 unboost = set_f64(UNBOOST);
    return (K(rounded_pair)){high * unboost, low * unboost};
}

/* The sum over all but the maximum of exp((x - max)/T). */
KLCE_INLINE v_f64 K(rest_of)(const K(expsum_context) *c, const double *state, int i)
{
    return K(at_maximum)(c, state, K(REST), i);
}

/* log1p of that sum, in the precision that results need. */
KLCE_INLINE v_f64 K(log_of_rest)(const K(expsum_context) *c, const double *state, int i)
{
#if KLCE_REAL_IS_F64
    K(rounded_pair) rest = K(at_maximum_pair)(c, state, K(REST), i);
    return log1p_pair_f64(rest.high, rest.low);
#else
    return K(log1p_for)(K(rest_of)(c, state, i));
#endif
}

#undef DIRECT
#undef SQUARE_BITS
#undef LEAST_APART
#undef APART_NEAR
