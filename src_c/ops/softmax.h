/* softmax: a sweep for the maximum and the sum, a second over the row (then in cache) for the
 * quotients.  The maximum is part of this sum; what its exponential's rounding adds to it is put
 * right once the row is done, since in a confident row it is most of the sum.
 *
 * A row of one segment is exponentiated once: the first pass leaves the exponentials in the output
 * and the second scales them.  In place, or with several segments, each with a reference of its
 * own, the second pass computes them again: the same products, hence the same bits.
 */

/* Of the fields in expsum.h; PEAK is the maximum's exponential as it was summed. */
enum { K(SUM) = K(REST), K(MIN) = K(WEIGHTED), K(PEAK) = K(WEIGHTED) + 1 };

/* Exponentials are boosted by 2^LIFT, and so are quotients that may be subnormal.  What lies below
 * LOWEST is 0 as a quotient; it and the factor's low piece still have a normal product. */
#if KLCE_REAL_IS_F64
#define LIFT 512
#define LOWEST (-1100)
#define UNLIFT 0x1p-512
#define UNLIFT_INVERSE 0x1p512
#define LIFTED_NORMAL 0x1p-510 /* 2^LIFT times the smallest normal number */
#define EXPONENT_SHIFT 52
#define SPREAD 600 /* nats below the maximum down to which quotients stay normal */
#else
#define LIFT 100
#define LOWEST (-152)
#define UNLIFT 0x1p-100
#define UNLIFT_INVERSE 0x1p100
#define LIFTED_NORMAL 0x1p-26f
#define EXPONENT_SHIFT 23
#define SPREAD 60
#endif

static void K(softmax_prepare)(klce_call *call)
{
    K(expsum_prepare)(call, *(const double *)call->arg[1]);
}

KLCE_INLINE int K(keeps_exponentials)(const klce_call *call)
{
    return call->n <= KLCE_SEGMENT && call->arg[0] != call->arg[2];
}

KLCE_INLINE K(v) K(peak_of)(const K(expsum_context) *c, const K(measure) *from, K(v) max)
{
    return K(exp_measured)(c, from, K(max)(from->floor, max - from->origin));
}

/* 16 instructions a vector in float32, and one to store. */
KLCE_INLINE double K(sum_and_keep)(const K(expsum_context) *c, const K(measure) *from,
                                   const real *x, ptrdiff_t n, real *kept)
{
    K(lanes) lanes = K(no_lanes)();
    K(v) group[VECTORS], sum[VECTORS];
    for (ptrdiff_t i = 0; i < n; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, n);
        EACH_VECTOR(v) sum[v] = K(set)(0);
        for (ptrdiff_t j = i; j < end; j += LANES) {
            K(load_group)(x + j, end - j, (real)-INFINITY, group);
            EACH_VECTOR(v)
            {
                K(v) z = K(max)(from->floor, group[v] - from->origin);
                group[v] = K(exp_measured)(c, from, z);
                sum[v] = sum[v] + group[v];
            }
            if (kept)
                K(store_group)(kept + j, end - j, group);
        }
        K(add_lanes)(&lanes, sum);
    }
    return K(total)(&lanes);
}

static void K(softmax_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                             double *state)
{
    const K(expsum_context) *c = K(context)(call);
    const real *x = K(row_in)(call, 0, row) + low;
    K(extent) extent = K(extent_of)(x, high - low, 1);
    real origin, ref;
    K(reference_of)(c, extent.max, &origin, &ref);
    K(measure) from = K(measure_from)(c, origin, ref, LIFT, LOWEST);
    state[FIELD(MAX)] = extent.max;
    state[FIELD(MIN)] = extent.min;
    state[FIELD(ORIGIN)] = origin;
    state[FIELD(REF)] = ref;
    state[FIELD(SUM)] =
        K(keeps_exponentials)(call)
            ? K(sum_and_keep)(c, &from, x, high - low, K(row_out)(call, 2, row) + low)
            : K(sum_and_keep)(c, &from, x, high - low, NULL);
    real peak[WIDTH];
    K(store)(peak, K(peak_of)(c, &from, K(set)(extent.max)));
    state[FIELD(PEAK)] = peak[0];
}

static void K(softmax_merge)(const klce_call *call, double *into, const double *from)
{
    enum { M = FIELD(MAX), S = FIELD(SUM), L = FIELD(MIN) };
    enum { O = FIELD(ORIGIN), N = FIELD(REF), P = FIELD(PEAK) };
    int from_wins = from[M] > into[M];
    const double *low = from_wins ? into : from, *high = from_wins ? from : into;
    double factor = 0; /* all -inf: only nan matters, and passes */
    if (low[M] > -INFINITY)
        factor = K(rescale)(K(context)(call), low[O], low[N], high[O], high[N]);
    double max = high[M], sum = high[S] + low[S] * factor, min = KLCE_LESSER(low[L], high[L]);
    double origin = high[O], ref = high[N], peak = high[P];
    into[M] = max;
    into[S] = sum;
    into[L] = min;
    into[O] = origin;
    into[N] = ref;
    into[P] = peak;
}

/* SUM becomes the factor that makes of a boosted exponential 2^LIFT times its quotient, PEAK what
 * that is short of the exact factor; nan where the maximum is infinite.  MIN becomes whether the
 * row needs the lift. */
static void K(softmax_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    (void)row;
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i), boost = set_f64(UNLIFT_INVERSE);
        v_f64 sum = K(state)(state, K(SUM), i);
        /* In float64 the peak could not be known better than it was summed. */
        if (!KLCE_REAL_IS_F64)
            sum = sum + (boost / K(to_maximum)(c, state, i) - K(state)(state, K(PEAK), i));
        v_f64 factor = boost / sum + (max - max);
        v_f64 low = KLCE_FMA ? fma_f64(-factor, sum, boost) / sum : set_f64(0);
        v_f64 spread = max - K(state)(state, K(MIN), i);
        m_f64 narrow = lt_f64(spread, set_f64(SPREAD * c->t));
        store_f64(state + FIELD(SUM) + i, factor);
        store_f64(state + FIELD(PEAK) + i, low);
        store_f64(state + FIELD(MIN) + i, select_f64(narrow, set_f64(0), set_f64(1)));
    }
}

/* What exponentials are multiplied by.  The factor's own rounding would cost a unit at places, so
 * it comes in two pieces for an FMA; without one, a float32 product goes through float64. */
typedef struct {
    K(v) high, low;
#if !KLCE_FMA && !KLCE_REAL_IS_F64
    v_f64 wide[2]; /* for the low and the high half of the lanes */
#endif
} K(factor);

KLCE_INLINE K(v) K(times)(K(v) e, K(factor) factor)
{
#if KLCE_FMA
    return K(fma)(e, factor.high, e * factor.low);
#elif KLCE_REAL_IS_F64
    return e * factor.high;
#else
    return narrow(widen_low(e) * factor.wide[0], widen_high(e) * factor.wide[1]);
#endif
}

/* The factors of the rows whose lanes these are: `step` 1 for neighbours, 0 for one row. */
KLCE_INLINE K(factor) K(factor_of)(const double *state, int i, int step, int lifted)
{
    real high[WIDTH], low[WIDTH];
    double full[WIDTH];
    K(factor) factor;
    for (int k = 0; k < WIDTH; k++) {
        double lift = lifted ? 1 : UNLIFT;
        full[k] = state[FIELD(SUM) + i + k * step] * lift;
        high[k] = (real)full[k];
        low[k] = (real)((full[k] - high[k]) + state[FIELD(PEAK) + i + k * step] * lift);
    }
    factor.high = K(load)(high);
    factor.low = K(load)(low);
#if !KLCE_FMA && !KLCE_REAL_IS_F64
    factor.wide[0] = load_f64(full);
    factor.wide[1] = load_f64(full + WIDTH / 2);
#endif
    return factor;
}

/* Lifted, e times the factor is 2^LIFT times the quotient.  A normal one gets its exponent back.
 * Below, adding 2^-26 (in float32) rounds it at the place where the smallest subnormal number
 * stands, and the integer difference is that number's bits: no multiplication has a subnormal
 * result, which would cost a hundred cycles. */
KLCE_INLINE K(v) K(quotient)(K(v) e, K(factor) factor, int lifted)
{
    K(v) y = K(times)(e, factor);
    if (lifted) {
        K(v) normal = K(set)(LIFTED_NORMAL);
        K(b) small = K(to_bits)(y + normal) - K(to_bits)(normal);
        K(b) large = K(to_bits)(y) - K(set_bits)((K(bits_scalar))LIFT << EXPONENT_SHIFT);
        y = K(select)(K(lt)(y, normal), K(from_bits)(small), K(from_bits)(large));
        y = y + (factor.high - factor.high); /* nan has lost its bits to the subtraction */
    }
    return y;
}

KLCE_INLINE void K(softmax_quotients)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                      ptrdiff_t high, const double *state, int kept, int lifted)
{
    const K(expsum_context) *c = K(context)(call);
    const real *x = K(row_in)(call, kept ? 2 : 0, row);
    real *y = K(row_out)(call, 2, row);
    K(factor) factor = K(factor_of)(state, 0, 0, lifted);
    K(measure)
    from = K(measure_from)(c, (real)state[FIELD(ORIGIN)], (real)state[FIELD(REF)], LIFT, LOWEST);
    K(v) group[VECTORS];
    for (ptrdiff_t i = low; i < high; i += LANES) {
        K(load_group)(x + i, high - i, 0, group);
        EACH_VECTOR(v)
        {
            K(v) e = group[v];
            if (!kept)
                e = K(exp_measured)(c, &from, K(max)(from.floor, e - from.origin));
            group[v] = K(quotient)(e, factor, lifted);
        }
        K(store_group)(y + i, high - i, group);
    }
}

static void K(softmax_emit)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                            double *state)
{
    int kept = K(keeps_exponentials)(call), lifted = state[FIELD(MIN)] != 0;
    if (kept && !lifted)
        K(softmax_quotients)(call, row, low, high, state, 1, 0);
    else if (kept)
        K(softmax_quotients)(call, row, low, high, state, 1, 1);
    else if (!lifted)
        K(softmax_quotients)(call, row, low, high, state, 0, 0);
    else
        K(softmax_quotients)(call, row, low, high, state, 0, 1);
}

static void K(softmax_few)(const klce_call *call, ptrdiff_t row)
{
    const K(expsum_context) *c = K(context)(call);
    double state[KLCE_FIELDS * KLCE_TILE];
    K(v) e[KLCE_TILE / WIDTH][LANES];
    for (int w = 0; w < KLCE_TILE / WIDTH; w++) {
        int i = w * WIDTH;
        K(load_columns)(call, 0, row + i, e[w]);
        K(v) max = K(set)((real)-INFINITY), min = K(set)((real)INFINITY);
        for (ptrdiff_t j = 0; j < call->n; j++) {
            max = K(max)(e[w][j], max);
            min = K(min)(e[w][j], min);
        }
        K(references) r = K(references_of)(c, max, LIFT, LOWEST);
        for (ptrdiff_t j = 0; j < call->n; j++)
            e[w][j] = K(exp_measured)(c, &r.from, K(max)(r.from.floor, e[w][j] - r.origin));
        K(sum_columns)(e[w], call->n, state + FIELD(SUM) + i);
        K(store_field)(state + FIELD(MAX) + i, max);
        K(store_field)(state + FIELD(MIN) + i, min);
        K(store_field)(state + FIELD(ORIGIN) + i, r.origin);
        K(store_field)(state + FIELD(REF) + i, r.ref);
        K(store_field)(state + FIELD(PEAK) + i, K(peak_of)(c, &r.from, max));
    }
    K(softmax_finish)(call, row, KLCE_TILE, state);
    int lifted = 0;
    for (int i = 0; i < KLCE_TILE; i++)
        lifted |= state[FIELD(MIN) + i] != 0;
    for (int w = 0; w < KLCE_TILE / WIDTH; w++) {
        K(factor) factor = K(factor_of)(state, w * WIDTH, 1, lifted);
        for (ptrdiff_t j = 0; j < call->n; j++)
            e[w][j] = lifted ? K(quotient)(e[w][j], factor, 1) : K(quotient)(e[w][j], factor, 0);
        K(store_columns)(call, 2, row + w * WIDTH, e[w]);
    }
}

static const klce_kernel K(softmax_kernel) = {
    .prepare = K(softmax_prepare),
    .pass = {{K(softmax_sweep), K(softmax_merge), K(softmax_finish)},
             {K(softmax_emit), NULL, NULL}},
    .few = K(softmax_few),
};
