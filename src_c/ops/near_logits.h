/* Pairs of long rows of logits that are near, x (of p) and y (of q), in one sweep: both rows' sums
 * as expsum.h has them, and those of KL divergence.
 *
 * With m the class of x's maximum and a guess of the rows' offset, y_m - x_m or what is known of
 * them by then, a class has w ~ exp(x/T) and
 *     slope = ((y - x) - guess)/T, moved = w (exp(slope) - 1), bend = moved - w slope,
 * from one exponential where |slope| < 1.  w + moved is q to the scale of w, so that the sum of y's
 * exponentials comes along; and with A the sum of w, terms that of bend, drift that of moved,
 *     KL = terms/A - (s - log1p(s)),  s = drift/A,
 * as in kl_logits.h, whatever the guess, and with that of slope moved - bend, what a class of q
 * takes from p,
 *     KL(q||p) = reverse/(A + drift) - (u - log1p(u)),  u = -s/(1 + s):
 * but what is taken off is large where the guess is far off the difference of the normalisers.
 * For such rows the second sweep follows; where a slope is beyond NEAR_STEEPEST or no number, or
 * most of w is taken off again, the rows' sums are found one by one as well.
 *
 * All sums are linear in w, so that stretches of a row join as in expsum.h.  A guess that is eta T
 * above the winner's adds eta to each slope:
 *     drift + gain (drift + A),
 *     terms + gain drift + gap A,
 *     reverse + gain reverse + eta (1 + gain) drift + (eta gain - gap) A,
 * with gain = exp(eta) - 1 and gap = exp(eta) - 1 - eta.
 */

/* Fields, behind all that later sweeps write; TERMS is nan where KL is not to be had so. */
enum { K(NEAR_TERMS) = 22, K(NEAR_DRIFT), K(NEAR_GUESS), K(NEAR_REVERSE) };
LAST_FIELD(NEAR_REVERSE);
_Static_assert(FIELD(PLAIN_KL) < FIELD(NEAR_TERMS), "what stays stands behind logit_pairs.h's");

/* q is w + moved, which loses digits where the slope is far below 0, and is to stay in range. */
#define NEAR_STEEPEST ((real)8)

/* The least w in terms and drift: what is below shows in no divergence, and its product with a
 * slope's square would be subnormal. */
#define NEAR_LEAST (KLCE_REAL_IS_F64 ? (real)0x1p-520 : (real)0x1p-80)

/* What is summed under one maximum. */
typedef struct {
    real max, origin, ref;
    double y_at_max, guess;
} K(near_run);

typedef struct {
    K(measure) from;
    K(v) top, guess, guess_low; /* x's maximum less its origin; the guess in two pieces */
} K(near_measure);

KLCE_INLINE K(near_measure) K(near_measure_of)(const K(expsum_context) *c, const K(near_run) *run)
{
    real high = (real)run->guess;
    K(near_measure) by;
    by.from = K(measure_from)(c, run->origin, run->ref, BOOST, FLOOR);
    by.top = K(set)(run->max - run->origin);
    by.guess = K(set)(high);
    by.guess_low = K(set)((real)(run->guess - (double)high));
    return by;
}

/* The partial sums of a group's lanes, and those under one maximum; weighted sums and what is the
 * reverse's are there where those are asked for. */
typedef struct {
    K(v) sum[VECTORS], tail[VECTORS], weighted[VECTORS];
    K(v) moved_below[VECTORS], terms[VECTORS], drift[VECTORS], reverse[VECTORS];
} K(near_parts);

typedef struct {
    K(lanes) rest, weighted, moved_below, terms, drift, reverse;
} K(near_lanes);

/* What is summed at a time: w, slope T, and how far x is below its maximum. */
typedef struct {
    K(v) w[FLUSH / WIDTH], d[FLUSH / WIDTH], below[FLUSH / WIDTH];
} K(near_stretch);

/* The first loop, of the group of vector m on, as pair_terms.h has several: the exponentials, what
 * is summed of x alone, and the distances.  In float32 29 instructions a vector, with the weighted
 * sum 3 more. */
KLCE_INLINE void K(near_measured)(const K(expsum_context) *c, const K(near_measure) *by,
                                  const K(v) *x, const K(v) *y, K(near_parts) *into,
                                  K(near_stretch) *to, ptrdiff_t m, int weighs)
{
    K(v) *w = to->w + m, *d = to->d + m, *below = to->below + m;
    int beside = KLCE_LESSER(VECTORS, KLCE_BESIDE);
    KLCE_UNROLL for (int first = 0; first < VECTORS; first += beside)
    {
        K(v) z[KLCE_BESIDE], t[KLCE_BESIDE], scale[KLCE_BESIDE];
        KLCE_UNROLL for (int i = 0; i < beside; i++) z[i] =
            K(max)(by->from.floor, x[first + i] - by->from.origin);
        K(exp_tails)(&c->e, z, by->from.magic, t, scale, beside);
        KLCE_UNROLL for (int i = 0; i < beside; i++)
        {
            int v = first + i;
            into->sum[v] = into->sum[v] + scale[i];
            into->tail[v] = K(fma)(t[i], scale[i], into->tail[v]);
            K(v) whole = K(fma)(t[i], scale[i], scale[i]);
            w[v] = K(max)(whole, K(set)(NEAR_LEAST));
            if (weighs) {
                below[v] = by->top - z[i];
                into->weighted[v] = K(fma)(whole, below[v], into->weighted[v]);
            }
            /* y - x without error (Knuth's two-sum), then less the guess. */
            K(v) s = y[v] - x[v], u = s - y[v], error = (y[v] - (s - u)) - (x[v] + u);
            d[v] = (s - by->guess) + (error - by->guess_low);
        }
    }
}

/* A class whose slope is 1 or beyond, or of -inf in both rows, whose slope is taken to be 0.
 * Whether a slope is beyond what may be.  The exponential is that of d, slope T as it was. */
KLCE_INLINE int K(near_far)(const K(expsum_context) *c, K(v) x, K(v) y, K(v) w, K(v) d, K(v) *slope,
                            K(v) *moved, K(v) *bend)
{
    K(v) least = K(set)((real)-INFINITY), one = K(set)(1), zero = K(set)(0);
    K(m) far = K(not)(K(lt)(*slope * *slope, one));
    K(m) no_class = K (and)(K(eq)(x, least), K(eq)(y, least));
    d = K(select)(no_class, zero, d);
    *slope = K(select)(no_class, zero, *slope);
    K(exp_parts) parts = K(exp_reduce)(&c->e, d, K(set)(K(KLCE_MAGIC) + K(KLCE_BIAS)));
    K(v) gain = K(fma)(K(exp_tail)(&c->e, parts.r), parts.scale, parts.scale - one) * w;
    *moved = K(select)(far, gain, *moved);
    *bend = K(select)(far, K(fma)(-*slope, w, gain), *bend);
    return K(any)(K(not)(K(lt)(K(max)(*slope, -*slope), K(set)(NEAR_STEEPEST))));
}

/* Takes a distance of 0 for what has no terms, and would be far: the maximum, if it is one of these
 * classes, and what is beyond them. */
KLCE_INLINE void K(pass_over)(K(near_stretch) *of, ptrdiff_t classes, ptrdiff_t maximum)
{
    ptrdiff_t count = classes % LANES, m = classes / LANES * VECTORS;
    EACH_VECTOR(v)
    if (count)
        of->d[m + v] = K(select)(K(holds_class)(v, count), of->d[m + v], K(set)(0));
    if (maximum >= 0 && maximum < classes)
        ((real *)of->d)[maximum] = 0;
}

/* The second loop, likewise, of elements x and y: in float32 20 instructions a vector, with the
 * weighted sum and the reverse 4 more, and some 35 more where a class is far.  Whether a slope is
 * beyond what may be. */
KLCE_INLINE int K(near_terms)(const K(expsum_context) *c, const K(near_stretch) *of, ptrdiff_t m,
                              const elem *x, const elem *y, ptrdiff_t count, K(near_parts) *into,
                              int weighs)
{
    int lost = 0;
    EACH_VECTOR(v)
    {
        K(v) w = of->w[m + v], d = of->d[m + v], slope = d * K(set)(c->e.c1), bend, moved;
        K(near_pair)(w, slope, &bend, &moved);
        if (K(any)(K(not)(K(lt)(slope * slope, K(set)(1))))) {
            K(v) x_group[VECTORS], y_group[VECTORS];
            K(load_group)(x, count, (real)-INFINITY, x_group);
            K(load_group)(y, count, (real)-INFINITY, y_group);
            lost |= K(near_far)(c, x_group[v], y_group[v], w, d, &slope, &moved, &bend);
        }
        into->terms[v] = into->terms[v] + bend;
        into->drift[v] = into->drift[v] + moved;
        if (weighs) {
            into->moved_below[v] = K(fma)(moved, of->below[m + v], into->moved_below[v]);
            into->reverse[v] = into->reverse[v] + K(fma)(slope, moved, -bend);
        }
    }
    return lost;
}

KLCE_INLINE K(near_parts) K(no_near_parts)(void)
{
    K(near_parts) parts;
    EACH_VECTOR(v)
    {
        parts.sum[v] = parts.tail[v] = parts.weighted[v] = K(set)(0);
        parts.moved_below[v] = parts.terms[v] = parts.drift[v] = parts.reverse[v] = K(set)(0);
    }
    return parts;
}

KLCE_INLINE K(near_lanes) K(no_near_lanes)(void)
{
    K(lanes) none = K(no_lanes)();
    return (K(near_lanes)){none, none, none, none, none, none};
}

KLCE_INLINE void K(add_near_parts)(K(near_lanes) *lanes, const K(near_parts) *parts, int weighs)
{
    K(add_lanes)(&lanes->rest, parts->sum);
    K(add_lanes)(&lanes->rest, parts->tail);
    K(add_lanes)(&lanes->terms, parts->terms);
    K(add_lanes)(&lanes->drift, parts->drift);
    if (weighs) {
        K(add_lanes)(&lanes->weighted, parts->weighted);
        K(add_lanes)(&lanes->moved_below, parts->moved_below);
        K(add_lanes)(&lanes->reverse, parts->reverse);
    }
}

/* exp(z/T) - 1 - z/T: what terms change by where a guess does by z. */
static KLCE_NOINLINE double K(exp_gap)(const K(expsum_context) *c, double z)
{
    v_f64 d = set_f64(z), eta = set_f64(z / c->t);
    v_f64 near = exp_poly_f64(&c->f, d) * d * d;
    v_f64 far = exp_f64(&c->f, d, c->t) - set_f64(1) - eta;
    return first_lane_f64(select_f64(lt_f64(max_f64(eta, -eta), set_f64(0.34)), near, far));
}

/* Joins TERMS, DRIFT, REVERSE and the guess of a later state; before the rows' own sums are
 * joined. */
static void K(near_join)(const K(expsum_context) *c, double *into, const double *from)
{
    enum { M = FIELD(MAX), O = FIELD(ORIGIN), N = FIELD(REF) };
    enum { B = FIELD(NEAR_TERMS), D = FIELD(NEAR_DRIFT), G = FIELD(NEAR_GUESS) };
    enum { V = FIELD(NEAR_REVERSE) };
    const double *low = from[M] > into[M] ? into : from, *high = low == into ? from : into;
    double terms = high[B], drift = high[D], reverse = high[V], guess = high[G];
    if (into[B] != into[B] || from[B] != from[B]) { /* the others may be anything */
        into[B] = NAN;
        return;
    }
    if (fabs(low[M]) < INFINITY && fabs(high[M]) < INFINITY) {
        double factor = K(rescale)(c, low[O], low[N], high[O], high[N]);
        double mass = factor * K(mass_at_reference)(c, low), eta = (low[G] - high[G]) / c->t;
        double gap = K(exp_gap)(c, low[G] - high[G]), gain = gap + eta;
        terms += factor * low[B] + (gain * (factor * low[D]) + gap * mass);
        reverse += (1 + gain) * (factor * low[V] + eta * (factor * low[D]));
        reverse += (eta * gain - gap) * mass;
        drift += factor * low[D] + gain * (factor * low[D] + mass);
    } else {
        terms += low[B] == low[B] ? 0 : NAN;
    }
    into[B] = terms;
    into[D] = drift;
    into[V] = reverse;
    into[G] = guess;
}

/* Closes a run and joins it to the states of x and, `q` fields on, y; or 0, where y_m is infinite,
 * or where little of w is left in y's sum, and few of its digits.  1 + s is a third at least. */
static KLCE_NOINLINE int K(end_near_run)(const K(expsum_context) *c, const K(near_run) *run,
                                         const K(near_lanes) *lanes, int weighs, double *state,
                                         int q)
{
    double closed[KLCE_TILE * KLCE_FIELDS], *y = closed + q * KLCE_TILE;
    double rest = K(total)(&lanes->rest), drift = K(total)(&lanes->drift);
    double apart = run->y_at_max, rounded = 0;
    real y_max = (real)run->y_at_max, origin, ref;
    if (!(rest + drift >= rest * 0.375 && rest + drift < INFINITY && fabs(apart) < INFINITY))
        return 0;
    closed[FIELD(MAX)] = run->max;
    closed[FIELD(REST)] = rest;
    closed[FIELD(ORIGIN)] = run->origin;
    closed[FIELD(REF)] = run->ref;
    closed[FIELD(WEIGHTED)] = weighs ? K(total)(&lanes->weighted) : 0;
    closed[FIELD(NEAR_TERMS)] = K(total)(&lanes->terms);
    closed[FIELD(NEAR_GUESS)] = run->guess;
    closed[FIELD(NEAR_DRIFT)] = drift;
    closed[FIELD(NEAR_REVERSE)] = weighs ? K(total)(&lanes->reverse) : 0;
    /* Of y's at m, y is below - slope T, and q slope sums up to drift + reverse. */
    double y_weighted = 0;
    if (weighs)
        y_weighted = closed[FIELD(WEIGHTED)] + K(total)(&lanes->moved_below) -
                     c->t * (drift + closed[FIELD(NEAR_REVERSE)]);
    /* m is outside both sums, which are taken from the scale of x_m to that of y_m. */
    double own = K(own_at_reference)(c, run->max, run->origin, run->ref);
    K(reference_of)(c, y_max, &origin, &ref);
    double scale = K(own_at_reference)(c, y_max, origin, ref) / own;
    /* m's own slope, whose rounded part shows in float64 where the guess is m's; all others are as
     * far from y's maximum. */
    ADD_KEEPING(double, apart, -(double)run->max, rounded);
    double left = (apart - run->guess) + rounded;
    if (left != 0) {
        double gap = K(exp_gap)(c, left), gain = gap + left / c->t;
        closed[FIELD(NEAR_TERMS)] += own * gap;
        closed[FIELD(NEAR_DRIFT)] += own * gain;
        closed[FIELD(NEAR_REVERSE)] += own * (left / c->t * gain - gap);
        scale *= K(exp_of)(c, -left);
        y_weighted += left * (rest + drift);
    }
    y[FIELD(MAX)] = y_max;
    y[FIELD(REST)] = (rest + drift) * scale;
    y[FIELD(ORIGIN)] = origin;
    y[FIELD(REF)] = ref;
    y[FIELD(WEIGHTED)] = y_weighted * scale;
    K(near_join)(c, state, closed);
    K(expsum_join)(c, state, closed, weighs);
    K(expsum_join)(c, state + q * KLCE_TILE, y, weighs);
    return 1;
}

/* The offset of what is summed by now, a better guess than a single class's distance: KL of one row
 * in twelve is less than a quarter of what is taken off where classes' distances deviate by chance
 * and the guess is one of them. */
static KLCE_NOINLINE double K(guess_from_sums)(const K(expsum_context) *c, const double *state)
{
    double drift = state[FIELD(NEAR_DRIFT)] / K(mass_at_reference)(c, state);
    return state[FIELD(NEAR_GUESS)] + c->t * first_lane_f64(log1p_f64(set_f64(drift)));
}

/* Makes y's maximum, the class at x's so far, what the state is about. */
static void K(near_top)(const K(expsum_context) *c, double *y, double max)
{
    real origin, ref;
    double own = K(own_at_reference)(c, y[FIELD(MAX)], y[FIELD(ORIGIN)], y[FIELD(REF)]);
    double mass = y[FIELD(REST)] + own;
    if (max == y[FIELD(MAX)])
        return;
    y[FIELD(WEIGHTED)] += (max - y[FIELD(MAX)]) * mass;
    K(reference_of)(c, (real)max, &origin, &ref);
    double factor = K(rescale)(c, y[FIELD(ORIGIN)], y[FIELD(REF)], origin, ref);
    y[FIELD(REST)] = mass * factor - K(own_at_reference)(c, max, origin, ref);
    y[FIELD(WEIGHTED)] *= factor;
    y[FIELD(MAX)] = max;
    y[FIELD(ORIGIN)] = origin;
    y[FIELD(REF)] = ref;
}

/* The sums of n classes in the states of x and, `q` fields on, y; if they are not to be had, 0. */
KLCE_INLINE int K(sum_near)(const K(expsum_context) *c, const elem *x, const elem *y, ptrdiff_t n,
                            int weighs, double *state, int q)
{
    K(near_run) run = {.max = (real)-INFINITY};
    K(near_lanes) lanes = K(no_near_lanes)();
    K(near_measure) by = K(near_measure_of)(c, &run);
    K(v) x_group[VECTORS], y_group[VECTORS];
    K(near_stretch) stretch;
    elem x_without[LANES]; /* the maximum's group, without it */
    K(peak) y_peak = K(no_peak)();
    real block_max = K(max_of)(x, KLCE_LESSER(BLOCK, n));
    double *other = state + q * KLCE_TILE;
    int lost = 0;
    state[FIELD(MAX)] = other[FIELD(MAX)] = -INFINITY;
    for (int f = K(REST); f <= K(WEIGHTED); f++)
        state[f * KLCE_TILE] = other[f * KLCE_TILE] = 0;
    for (int f = K(NEAR_TERMS); f <= K(NEAR_REVERSE); f++)
        state[f * KLCE_TILE] = 0;

    for (ptrdiff_t start = 0; start < n && !lost; start += BLOCK) {
        ptrdiff_t stop = KLCE_LESSER(start + BLOCK, n), first = -1, skipped = -1;
        if (block_max > run.max) {
            if (run.max > (real)-INFINITY) /* what is below it has no class to be measured by */
                lost |= !K(end_near_run)(c, &run, &lanes, weighs, state, q);
            lanes = K(no_near_lanes)();
            first = K(first_maximum)(x, start, stop, block_max);
            double guess = start ? K(guess_from_sums)(c, state) : NAN;
            run.max = block_max;
            run.y_at_max = (double)K(value)(y[first]);
            run.guess = run.y_at_max - (double)run.max;
            if (fabs(run.guess - guess) < c->t) /* y's sum is right to the last place of that */
                run.guess = guess;
            K(reference_of)(c, run.max, &run.origin, &run.ref);
            by = K(near_measure_of)(c, &run);
            skipped = K(copy_without)(x, start, stop, first, x_without);
        }
        ptrdiff_t next_stop = KLCE_LESSER(stop + BLOCK, n);
        K(peak) next_peak = K(no_peak)();
        for (ptrdiff_t i = start; i < stop; i += FLUSH) {
            ptrdiff_t end = KLCE_LESSER(i + FLUSH, stop);
            K(near_parts) parts = K(no_near_parts)();
            for (ptrdiff_t j = i; j < end && j + BLOCK + LANES <= next_stop; j += LANES)
                K(raise_peak)(&next_peak, x + j + BLOCK);
            for (ptrdiff_t j = i; weighs && j < end && j + LANES <= n; j += LANES)
                K(raise_peak)(&y_peak, y + j);
            for (ptrdiff_t j = i, m = 0; j < end; j += LANES, m += VECTORS) {
                K(prefetch_group)(x + j);
                K(prefetch_group)(y + j);
                K(load_group)(j == skipped ? x_without : x + j, end - j, (real)-INFINITY, x_group);
                K(load_group)(y + j, end - j, (real)-INFINITY, y_group);
                K(near_measured)(c, &by, x_group, y_group, &parts, &stretch, m, weighs);
            }
            K(pass_over)(&stretch, end - i, first - i);
            for (ptrdiff_t j = i, m = 0; j < end; j += LANES, m += VECTORS)
                lost |= K(near_terms)(c, &stretch, m, j == skipped ? x_without : x + j, y + j,
                                      end - j, &parts, weighs);
            K(add_near_parts)(&lanes, &parts, weighs);
        }
        if (next_stop > stop)
            block_max = K(largest)(&next_peak, x + stop, next_stop - stop);
    }
    if (lost || !(fabs((double)run.max) < INFINITY))
        return 0;
    if (!K(end_near_run)(c, &run, &lanes, weighs, state, q))
        return 0;
    if (weighs) {
        double y_max = (double)K(largest)(&y_peak, y, n);
        /* A sum is taken off another that is not much larger. */
        if (!(y_max - other[FIELD(MAX)] < 0.7 * c->t))
            return 0;
        K(near_top)(c, other, y_max);
    }
    return 1;
}

/* Of KL(p||q) alone, y's state standing at `q`; y's MAX is what it is at x's. */
static KLCE_NOINLINE int K(sum_exp_near)(const K(expsum_context) *c, const elem *x, const elem *y,
                                         ptrdiff_t n, double *state, int q)
{
    return K(sum_near)(c, x, y, n, 0, state, q);
}

/* With the weighted sums and y's maximum. */
static KLCE_NOINLINE int K(sum_exp_and_weighted_near)(const K(expsum_context) *c, const elem *x,
                                                      const elem *y, ptrdiff_t n, double *state,
                                                      int q)
{
    return K(sum_near)(c, x, y, n, 1, state, q);
}

/* KL of the sums of the first sweep; nan where it has not the digits, or is no number: of a y of
 * -inf, of nan, of boosted distances beyond all numbers, whose sum may be -inf.  `size` is what its
 * rounding is a share of, which is at most four times KL. */
KLCE_INLINE v_f64 K(with_digits)(v_f64 kl, v_f64 size)
{
    v_f64 huge = set_f64(0x1p60); /* far from LEAST_APART */
    m_f64 digits = and_f64(le_f64(size, set_f64(4) * kl), le_f64(set_f64(0), kl));
    m_f64 number = and_f64(lt_f64(kl, huge), lt_f64(size, huge));
    return select_f64(and_f64(digits, number), kl, set_f64(NAN));
}

/* By how much the second row's sum, at the guess, is more than the first's, as a share of that. */
KLCE_INLINE v_f64 K(near_drift)(const K(expsum_context) *c, const double *state, int i)
{
    v_f64 mass = set_f64(1) + K(rest_of)(c, state, i);
    return K(at_maximum)(c, state, K(NEAR_DRIFT), i) / mass;
}

/* KL of those sums. */
KLCE_INLINE v_f64 K(near_kl)(const K(expsum_context) *c, const double *state, int i)
{
    v_f64 mass = set_f64(1) + K(rest_of)(c, state, i);
    v_f64 terms = K(at_maximum)(c, state, K(NEAR_TERMS), i) / mass;
    return K(with_digits)(terms - log1p_gap_f64(K(near_drift)(c, state, i)), terms);
}

/* KL(q||p) of those sums, likewise. */
KLCE_INLINE v_f64 K(near_reverse_kl)(const K(expsum_context) *c, const double *state, int i)
{
    v_f64 one = set_f64(1), s = K(near_drift)(c, state, i), mass = one + K(rest_of)(c, state, i);
    v_f64 terms = K(at_maximum)(c, state, K(NEAR_REVERSE), i) / (mass * (one + s));
    return K(with_digits)(terms - log1p_gap_f64(-s / (one + s)), terms);
}

#undef NEAR_STEEPEST
#undef NEAR_LEAST
