/* The state of a row's exponentials: what a sweep leaves of them, how the states of two parts of a
 * row are joined, and what results take from it. */

/* The fields of a row's state. */
enum {
    K(MAX),      /* the maximum */
    K(REST),     /* the boosted sum of the others; nan if the row holds one */
    K(ORIGIN),   /* what the exponentials are measured from */
    K(REF),      /* the integer, likewise */
    K(WEIGHTED), /* the sum of exp * (max - x), boosted, if asked for */
    K(SQUARES),  /* the sum, the maximum's term too, of exp * (max - x - their mean)^2, likewise */
    /* Beside another row y, instead of squares: */
    K(APART) = K(SQUARES), /* the sum, the maximum's term too, of exp * (x - y), boosted */
    /* Of rows of few classes, whose states join no other, APART is of exp * apart,
     * apart = (x - y) - CENTRE: */
    K(SIZES) = K(WEIGHTED),  /* the sum of exp * |apart|, likewise */
    K(CENTRE) = K(APART) + 1 /* the difference of the maxima, in `real`; 0 if one is infinite */
};
LAST_FIELD(CENTRE);

/* What is known of WIDTH rows before they are summed, into their states. */
KLCE_INLINE void K(store_references)(K(v) max, const K(references) *r, double *state)
{
    K(store_field)(state + FIELD(MAX), max);
    K(store_field)(state + FIELD(ORIGIN), r->origin);
    K(store_field)(state + FIELD(REF), r->ref);
}

/* What a row with an infinite maximum leaves. */
KLCE_INLINE void K(leave_infinite)(int any_nan, int moments, double *state)
{
    state[FIELD(REST)] = any_nan ? NAN : 0;
    if (moments)
        state[FIELD(WEIGHTED)] = 0;
}

/* A maximum's own exponential at a reference, and a state's mass with it, boosted. */
KLCE_INLINE double K(own_at_reference)(const K(expsum_context) *c, double max, double origin,
                                       double ref)
{
    return K(rescale)(c, max, 0, origin, ref) * (1 / UNBOOST);
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
        /* A state so far below that it weighs nothing may be at any distance. */
        if (moments)
            weighted = high[B] + (factor * low[B] + (sum > 0 ? (high[M] - low[M]) * sum : 0));
    }
    double m = high[M], origin = high[O], ref = high[N];
    into[M] = m;
    into[S] = rest;
    into[O] = origin;
    into[N] = ref;
    if (moments)
        into[B] = weighted;
}

/* The same of states that stand beside another row's, of no more than one moment. */
KLCE_INLINE void K(apart_join)(const K(expsum_context) *c, double *into, const double *from,
                               int moments)
{
    enum { M = FIELD(MAX), O = FIELD(ORIGIN), N = FIELD(REF), A = FIELD(APART) };
    const double *low = from[M] > into[M] ? into : from, *high = low == into ? from : into;
    double apart = high[A];
    if (fabs(low[M]) < INFINITY && fabs(high[M]) < INFINITY)
        apart += K(rescale)(c, low[O], low[N], high[O], high[N]) * low[A];
    K(expsum_join)(c, into, from, moments);
    into[A] = apart;
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
