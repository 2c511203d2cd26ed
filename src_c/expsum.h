/* The sum of a row's exponentials, in one read: what logsumexp, softmax, cross-entropy and the
 * entropy of logits all stand on.
 *
 * The maximum m stays out of the sum: each lane keeps the largest it has seen, and the loser of
 * each comparison goes into the sum, so that logsumexp = m/T + log1p(rest) loses nothing of a
 * small rest.  Ties count.
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
#define BOOST 64
#define UNBOOST 0x1p-64
#define FLOOR (-188)
#define DIRECT 256
#endif

/* The fields of a row's state. */
enum {
    K(MAX),     /* the maximum */
    K(REST),    /* the boosted sum of the others; nan if the row holds one */
    K(ORIGIN),  /* what the exponentials are measured from */
    K(REF),     /* the integer, likewise */
    K(WEIGHTED) /* the sum of exp * (max - x), boosted, if asked for */
};

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
    K(measure_from)(const K(expsum_context) *c, real origin, real ref, int boost, int floor)
{
    return (K(measure)){K(set)(origin), K(set)((ref + floor) * c->e.ln2_hi),
                        K(set)(K(KLCE_MAGIC) + (K(KLCE_BIAS) + boost) - ref)};
}

/* 14 instructions in float32 with the polynomial's constants in registers. */
KLCE_INLINE K(v) K(exp_measured)(const K(expsum_context) *c, const K(measure) *from, K(v) z)
{
    K(exp_parts) parts = K(exp_reduce)(&c->e, z, from->magic);
    return K(exp_mantissa)(&c->e, parts.r) * parts.scale;
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

KLCE_INLINE int K(has_nan)(const real *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        if (x[i] != x[i])
            return 1;
    return 0;
}

/* One block of the sweep: 17 instructions a vector in float32 (load, min, max, subtract, clamp,
 * 11 of exp, add), 3 more with `weighted`. */
KLCE_INLINE void K(expsum_group)(const K(expsum_context) *c, const K(measure) *from, K(v) top,
                                 const K(v) *x, K(v) *most, K(v) *sum, K(v) *weighted)
{
    EACH_VECTOR(v)
    {
        /* A nan x loses the max and wins the min: it goes into the sum. */
        K(v) loser = K(min)(most[v], x[v]);
        most[v] = K(max)(x[v], most[v]);
        K(v) z = K(max)(from->floor, loser - from->origin);
        K(v) e = K(exp_measured)(c, from, z);
        sum[v] = sum[v] + e;
        if (weighted)
            weighted[v] = K(fma)(e, top - z, weighted[v]);
    }
}

KLCE_INLINE void K(expsum)(const K(expsum_context) *c, const real *x, ptrdiff_t n, double *state,
                           int want_weighted)
{
    real max = (real)-INFINITY, origin = 0, ref = 0;
    K(lanes) rest = K(no_lanes)(), weighted = K(no_lanes)();
    K(measure) from = K(measure_from)(c, origin, ref, BOOST, FLOOR);
    K(v) most[VECTORS], sum[VECTORS], product[VECTORS], x_group[VECTORS];
    /* The first group is what the lanes have seen; a nan stays in its lane until the end. */
    K(load_group)(x, n, (real)-INFINITY, most);

    for (ptrdiff_t start = 0; start < n; start += BLOCK) {
        ptrdiff_t length = KLCE_LESSER(BLOCK, n - start);
        K(extent) extent = K(extent_of)(x + start, length, 0);
        if (extent.max > max) {
            real new_origin, new_ref;
            K(reference_of)(c, extent.max, &new_origin, &new_ref);
            if (start) {
                /* All -inf so far: what the sums hold is the floor's dust, or nan. */
                int first = max == (real)-INFINITY;
                double factor = first ? 0 : K(rescale)(c, origin, ref, new_origin, new_ref);
                K(scale_lanes)(&rest, factor);
                if (want_weighted) {
                    K(scale_lanes)(&weighted, factor);
                    if (!first)
                        K(add_scaled_lanes)(&weighted, &rest, (double)extent.max - max);
                }
            }
            max = extent.max;
            origin = new_origin;
            ref = new_ref;
            from = K(measure_from)(c, origin, ref, BOOST, FLOOR);
        }
        /* Finite even while all is -inf: what is multiplied by it is scaled to 0 later. */
        K(v) top = K(set)(max == (real)-INFINITY ? 0 : max - origin);
        for (ptrdiff_t i = start; i < start + length; i += FLUSH) {
            ptrdiff_t end = KLCE_LESSER(i + FLUSH, start + length), j = i ? i : LANES;
            EACH_VECTOR(v) sum[v] = product[v] = K(set)(0);
            for (; j + LANES <= end; j += LANES) {
                K(load_group)(x + j, LANES, 0, x_group);
                K(expsum_group)(c, &from, top, x_group, most, sum, want_weighted ? product : NULL);
            }
            if (j < end) {
                K(load_group)(x + j, end - j, (real)-INFINITY, x_group);
                K(expsum_group)(c, &from, top, x_group, most, sum, want_weighted ? product : NULL);
            }
            K(add_lanes)(&rest, sum);
            if (want_weighted)
                K(add_lanes)(&weighted, product);
        }
    }

    /* What the lanes still hold: all but one of the maxima go into the sum. */
    real lane[LANES];
    int ties = -1;
    K(v) top = K(set)(max - origin), is_top = K(set)(max);
    EACH_VECTOR(v)
    {
        K(v) z = K(max)(from.floor, most[v] - from.origin);
        K(v) e = K(exp_measured)(c, &from, z);
        sum[v] = K(select)(K(eq)(most[v], is_top), K(set)(0), e);
        product[v] = sum[v] * (top - z);
        K(store)(lane + v * WIDTH, most[v]);
    }
    for (int i = 0; i < LANES; i++)
        ties += lane[i] == max;
    if (ties > 0) {
        K(v) tied[VECTORS];
        K(v) e = K(exp_measured)(c, &from, top);
        EACH_VECTOR(v) tied[v] = K(set)(0);
        tied[0] = K(load_part)((real[1]){(real)ties}, 1, K(set)(0)) * e;
        EACH_VECTOR(v) sum[v] = sum[v] + tied[v];
    }
    K(add_lanes)(&rest, sum);
    state[FIELD(MAX)] = max;
    state[FIELD(REST)] = K(total)(&rest);
    state[FIELD(ORIGIN)] = origin;
    state[FIELD(REF)] = ref;
    if (want_weighted) {
        K(add_lanes)(&weighted, product);
        state[FIELD(WEIGHTED)] = K(total)(&weighted);
    }
    if (!(fabs((double)max) < INFINITY)) {
        /* The sums are no use: only nan among the elements still matters. */
        state[FIELD(REST)] = K(has_nan)(x, n) ? NAN : 0;
        if (want_weighted)
            state[FIELD(WEIGHTED)] = 0;
    }
}

/* The sweeps that ops use, each compiled once. */
static KLCE_NOINLINE void K(sum_exp)(const K(expsum_context) *c, const real *x, ptrdiff_t n,
                                     double *state)
{
    K(expsum)(c, x, n, state, 0);
}

static KLCE_NOINLINE void K(sum_exp_and_weighted)(const K(expsum_context) *c, const real *x,
                                                  ptrdiff_t n, double *state)
{
    K(expsum)(c, x, n, state, 1);
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
    r.from.origin = r.origin;
    r.from.floor = (r.ref + K(set)(floor)) * K(set)(c->e.ln2_hi);
    r.from.magic = K(set)(K(KLCE_MAGIC) + (K(KLCE_BIAS) + boost)) - r.ref;
    return r;
}

/* A tile of rows of few classes: what expsum leaves in their states, to the bit. */
KLCE_INLINE void K(expsum_few)(const klce_call *call, int operand, ptrdiff_t row, double *state,
                               int want_weighted)
{
    const K(expsum_context) *c = K(context)(call);
    ptrdiff_t n = call->n;
    K(v) x[LANES], product[LANES], zero = K(set)(0), one = K(set)(1);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(load_columns)(call, operand, row + i, x);
        K(v) max = K(set)((real)-INFINITY), ties = -one;
        for (ptrdiff_t j = 0; j < n; j++)
            max = K(max)(x[j], max);
        K(references) r = K(references_of)(c, max, BOOST, FLOOR);
        K(v) top = max - r.origin;
        for (ptrdiff_t j = 0; j < n; j++) {
            K(m) is_top = K(eq)(x[j], max);
            K(v) z = K(max)(r.from.floor, x[j] - r.origin);
            ties = ties + K(select)(is_top, one, zero);
            x[j] = K(select)(is_top, zero, K(exp_measured)(c, &r.from, z));
            if (want_weighted)
                product[j] = x[j] * (top - z);
        }
        if (K(any)(K(lt)(zero, ties)))
            x[0] = x[0] + ties * K(exp_measured)(c, &r.from, K(max)(r.from.floor, top));
        K(store_field)(state + FIELD(MAX) + i, max);
        K(store_field)(state + FIELD(ORIGIN) + i, r.origin);
        K(store_field)(state + FIELD(REF) + i, r.ref);
        K(sum_columns)(x, n, state + FIELD(REST) + i);
        if (want_weighted)
            K(sum_columns)(product, n, state + FIELD(WEIGHTED) + i);
        if (K(any)(K(eq)(K(max)(max, -max), K(set)((real)INFINITY))))
            for (int k = i; k < i + WIDTH; k++)
                if (!(fabs(state[FIELD(MAX) + k]) < INFINITY)) {
                    int nan = K(has_nan)(K(row_in)(call, operand, row + k), n);
                    state[FIELD(REST) + k] = nan ? NAN : 0;
                    if (want_weighted)
                        state[FIELD(WEIGHTED) + k] = 0;
                }
    }
}

static KLCE_NOINLINE void K(sum_exp_few)(const klce_call *call, int operand, ptrdiff_t row,
                                         double *state)
{
    K(expsum_few)(call, operand, row, state, 0);
}

static KLCE_NOINLINE void K(sum_exp_and_weighted_few)(const klce_call *call, int operand,
                                                      ptrdiff_t row, double *state)
{
    K(expsum_few)(call, operand, row, state, 1);
}

KLCE_INLINE void K(expsum_merge_state)(const klce_call *call, double *into, const double *from,
                                       int want_weighted)
{
    const K(expsum_context) *c = K(context)(call);
    enum { M = FIELD(MAX), S = FIELD(REST), O = FIELD(ORIGIN) };
    enum { N = FIELD(REF), B = FIELD(WEIGHTED) };
    int from_wins = from[M] > into[M];
    const double *low = from_wins ? into : from, *high = from_wins ? from : into;
    double rest, weighted = 0;
    if (!(fabs(low[M]) < INFINITY) || !(fabs(high[M]) < INFINITY)) {
        rest = high[S] + (low[S] == low[S] ? 0 : NAN);
        if (want_weighted)
            weighted = high[B];
    } else {
        /* The loser's maximum joins its sum. */
        double factor = K(rescale)(c, low[O], low[N], high[O], high[N]);
        double sum = low[S] + ldexp(K(rescale)(c, low[M], 0, low[O], low[N]), BOOST);
        rest = high[S] + factor * sum;
        if (want_weighted)
            weighted = high[B] + factor * (low[B] + (high[M] - low[M]) * sum);
    }
    double m = high[M], origin = high[O], ref = high[N];
    into[M] = m;
    into[S] = rest;
    into[O] = origin;
    into[N] = ref;
    if (want_weighted)
        into[B] = weighted;
}

static void K(expsum_merge)(const klce_call *call, double *into, const double *from)
{
    K(expsum_merge_state)(call, into, from, 0);
}

/* A tile's states, KLCE_WIDTH_f64 rows at a time. */
#define EACH_STATE(i, count) for (int i = 0; i < (count); i += KLCE_WIDTH_f64)

KLCE_INLINE v_f64 K(state)(const double *state, int field, int i)
{
    return load_f64(state + field * KLCE_TILE + i);
}

/* exp((ref*T*ln2 + origin - max)/T) - 1, within [-0.3, 0.42]: what leads from the reference to the
 * maximum. */
KLCE_INLINE v_f64 K(to_maximum)(const K(expsum_context) *c, const double *state, int i)
{
    v_f64 max = K(state)(state, K(MAX), i), ref = K(state)(state, K(REF), i);
    v_f64 z = fma_f64(ref, set_f64(c->f.ln2_hi), K(state)(state, K(ORIGIN), i) - max);
    z = fma_f64(ref, set_f64(c->f.ln2_mid), z);
    v_f64 infinite = set_f64(INFINITY);
    m_f64 finite = and_f64(lt_f64(max, infinite), lt_f64(-infinite, max));
    v_f64 step = fma_f64(exp_poly_f64(&c->f, z), z, set_f64(c->f.c1)) * z;
    return select_f64(finite, step, set_f64(0));
}

/* A finite boosted sum as one of exp((x - max)/T) and so on.  BOOST is taken off last: only there may the
 * product go subnormal. */
KLCE_INLINE v_f64 K(at_maximum)(const K(expsum_context) *c, const double *state, int field, int i)
{
    v_f64 sum = K(state)(state, field, i);
    return fma_f64(sum, K(to_maximum)(c, state, i), sum) * set_f64(UNBOOST);
}

/* The sum over all but the maximum of exp((x - max)/T). */
KLCE_INLINE v_f64 K(rest_of)(const K(expsum_context) *c, const double *state, int i)
{
    return K(at_maximum)(c, state, K(REST), i);
}

/* The rows' results, from a tile's worth of doubles to operand k. */
KLCE_INLINE void K(put)(const klce_call *call, int k, ptrdiff_t row, ptrdiff_t count,
                        const double *values)
{
    for (ptrdiff_t i = 0; i < count; i++)
        *K(row_out)(call, k, row + i) = (real)values[i];
}
