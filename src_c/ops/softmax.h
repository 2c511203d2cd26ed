/* softmax: a sweep for the maximum and the sum, a second over the row (then in cache) for the
 * quotients.
 *
 * A row of one segment is exponentiated once: the first pass leaves the exponentials in the output
 * and the second scales them.  In place, the second pass computes them again, to the same bits.
 * Longer rows would not stay in cache twice over: their sum is that of logsumexp, and the second
 * pass exponentiates for itself.
 */

/* Exponentials are boosted by 2^LIFT, and so are quotients that may be subnormal: those of
 * exponentials below LIFTED_SMALL.  What lies below LOWEST (in powers of two under the reference)
 * is 0 as a quotient.  A factor's low piece below NEGLIGIBLE of it is left out.  These are such
 * that no product goes subnormal, which would cost a hundred cycles. */
#if KLCE_REAL_IS_F64
#define LIFT 512
#define LOWEST (-1100)
#define UNLIFT 0x1p-512
#define LIFTED_SMALL 0x1p-354
#define LIFTED_NORMAL 0x1p-510 /* 2^LIFT times the smallest normal number */
#define NEGLIGIBLE 0x1p-60
#define EXPONENT_SHIFT 52
#else
#define LIFT 78
#define LOWEST (-152)
#define UNLIFT 0x1p-78
#define LIFTED_SMALL 0x1p20f
#define LIFTED_NORMAL 0x1p-48f
#define NEGLIGIBLE 0x1p-31
#define EXPONENT_SHIFT 23
#endif

static void K(softmax_prepare)(klce_call *call)
{
    K(expsum_prepare)(call, *(const double *)call->arg[1]);
}

KLCE_INLINE int K(keeps_exponentials)(const klce_call *call)
{
    return call->n <= KLCE_SEGMENT && call->arg[0] != call->arg[2];
}

/* exp((x - origin)/T) * 2^(LIFT - ref) as (1 + t) * scale: 17 instructions in float32, and 2 to join
 * them. */
KLCE_INLINE K(exp_pair) K(exp_lifted)(const K(expsum_context) *c, const K(measure) *from, K(v) x)
{
    return K(exp_pair_of)(&c->e, K(max)(from->floor, x - from->origin), from->magic);
}

KLCE_INLINE K(v) K(joined)(K(exp_pair) e) { return (K(set)(1) + e.t) * e.scale; }

/* The sum of the exponentials of all but the maxima, which are counted: float32 would round the sum
 * by a large one at every step.  Adding scale and t*scale keeps the rounding of 1 + t out of it.
 * 25 instructions a vector in float32, and one to store. */
KLCE_INLINE void K(sum_and_keep)(const K(expsum_context) *c, const real *x, ptrdiff_t n, real *kept,
                                 double *state)
{
    real max = K(extent_of)(x, n, 0).max, origin, ref;
    K(reference_of)(c, max, &origin, &ref);
    K(measure) from = K(measure_from)(c, origin, ref, LIFT, LOWEST);
    K(lanes) rest = K(no_lanes)(), ties = K(no_lanes)();
    K(v) group[VECTORS], sum[VECTORS], part[VECTORS], top[VECTORS];
    K(v) zero = K(set)(0), one = K(set)(1), peak = K(set)(max);
    EACH_VECTOR(v) top[v] = zero;
    /* A second large element would cost the rest of its lane as much: two groups a sum. */
    for (ptrdiff_t i = 0; i < n; i += 2 * LANES) {
        ptrdiff_t end = KLCE_LESSER(i + 2 * LANES, n);
        EACH_VECTOR(v) sum[v] = part[v] = zero;
        for (ptrdiff_t j = i; j < end; j += LANES) {
            K(load_group)(x + j, end - j, (real)-INFINITY, group);
            EACH_VECTOR(v)
            {
                K(m) is_top = K(eq)(group[v], peak);
                K(exp_pair) e = K(exp_lifted)(c, &from, group[v]);
                K(v) scale = K(select)(is_top, zero, e.scale);
                top[v] = top[v] + K(select)(is_top, one, zero);
                sum[v] = sum[v] + scale;
                part[v] = K(fma)(e.t, scale, part[v]);
                group[v] = K(joined)(e);
            }
            if (kept)
                K(store_group)(kept + j, end - j, group);
        }
        K(add_lanes)(&rest, sum);
        K(add_lanes)(&rest, part);
    }
    K(add_lanes)(&ties, top);
    state[FIELD(MAX)] = max;
    state[FIELD(ORIGIN)] = origin;
    state[FIELD(REF)] = ref;
    state[FIELD(REST)] = K(total)(&rest);
    state[FIELD(TIES)] = K(total)(&ties) - 1;
}

static void K(softmax_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                             double *state)
{
    const K(expsum_context) *c = K(context)(call);
    const real *x = K(row_in)(call, 0, row) + low;
    if (call->n > KLCE_SEGMENT)
        K(sum_exp)(c, x, high - low, state);
    else if (K(keeps_exponentials)(call))
        K(sum_and_keep)(c, x, high - low, K(row_out)(call, 2, row) + low, state);
    else
        K(sum_and_keep)(c, x, high - low, NULL, state);
}

/* REST becomes the factor that makes of a lifted exponential 2^LIFT times its quotient, TIES what
 * that is short of the exact factor; nan where the maximum is infinite. */
static void K(softmax_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    (void)row;
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i), scale = set_f64(1) + K(to_maximum)(c, state, i),
              rest;
        if (call->n > KLCE_SEGMENT)
            rest = K(rest_of)(c, state, i);
        else
            rest =
                K(state)(state, K(REST), i) * scale * set_f64(UNLIFT) + K(state)(state, K(TIES), i);
        v_f64 sum = set_f64(1) + rest, factor = scale / sum + (max - max);
        v_f64 low = KLCE_FMA ? fma_f64(-factor, sum, scale) / sum : set_f64(0);
        store_f64(state + FIELD(REST) + i, factor);
        store_f64(state + FIELD(TIES) + i, low);
    }
}

/* What lifted exponentials are multiplied by, for quotients as they are and for lifted ones.  The
 * rounding of a factor would cost a unit at places, so it comes in two pieces for an FMA; without
 * one, a float32 product goes through float64. */
typedef struct {
    K(v) high, low, limit; /* no quotient exceeds 1, whatever rounding says */
#if !KLCE_FMA && !KLCE_REAL_IS_F64
    v_f64 wide[2]; /* for the low and the high half of the lanes */
#endif
} K(factor);

/* The factors of the rows whose lanes these are: `step` 1 for neighbours, 0 for one row. */
KLCE_INLINE K(factor) K(factor_of)(const double *state, int i, int step, double lift)
{
    real high[WIDTH], low[WIDTH];
    double full[WIDTH];
    K(factor) factor;
    for (int k = 0; k < WIDTH; k++) {
        full[k] = state[FIELD(REST) + i + k * step] * lift;
        high[k] = (real)full[k];
        low[k] = (real)((full[k] - high[k]) + state[FIELD(TIES) + i + k * step] * lift);
        if (fabs((double)low[k]) < full[k] * NEGLIGIBLE)
            low[k] = 0;
    }
    factor.high = K(load)(high);
    factor.low = K(load)(low);
    factor.limit = K(set)((real)(lift / UNLIFT));
#if !KLCE_FMA && !KLCE_REAL_IS_F64
    factor.wide[0] = load_f64(full);
    factor.wide[1] = load_f64(full + WIDTH / 2);
#endif
    return factor;
}

KLCE_INLINE K(v) K(times)(K(v) e, const K(factor) *factor)
{
    K(v) product;
#if KLCE_FMA
    product = K(fma)(e, factor->high, e * factor->low);
#elif KLCE_REAL_IS_F64
    product = e * factor->high;
#else
    product = narrow(widen_low(e) * factor->wide[0], widen_high(e) * factor->wide[1]);
#endif
    return K(min)(factor->limit, product); /* nan comes through */
}

/* The quotient from 2^LIFT times it.  A normal one gets its exponent back.  Below, adding 2^-48 (in
 * float32) rounds it at the place where the smallest subnormal number stands, and the integer
 * difference is that number's bits. */
KLCE_INLINE K(v) K(unlifted)(K(v) y)
{
    K(v) normal = K(set)(LIFTED_NORMAL);
    K(b) small = K(to_bits)(y + normal) - K(to_bits)(normal);
    K(b) large = K(to_bits)(y) - K(set_bits)((K(bits_scalar))LIFT << EXPONENT_SHIFT);
    K(v) result = K(select)(K(lt)(y, normal), K(from_bits)(small), K(from_bits)(large));
    return K(select)(K(eq)(y, y), result, y);
}

KLCE_INLINE void K(softmax_quotients)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                      ptrdiff_t high, const double *state, int kept)
{
    const K(expsum_context) *c = K(context)(call);
    const real *x = K(row_in)(call, kept ? 2 : 0, row);
    real *y = K(row_out)(call, 2, row);
    K(factor) plain = K(factor_of)(state, 0, 0, UNLIFT), lifted = K(factor_of)(state, 0, 0, 1);
    K(measure) from =
        K(measure_from)(c, (real)state[FIELD(ORIGIN)], (real)state[FIELD(REF)], LIFT, LOWEST);
    K(v) group[VECTORS];
    for (ptrdiff_t i = low; i < high; i += LANES) {
        K(v) small = K(set)(LIFTED_SMALL), least = small;
        K(load_group)(x + i, high - i, kept ? LIFTED_SMALL : (real)state[FIELD(MAX)], group);
        EACH_VECTOR(v)
        {
            if (!kept)
                group[v] = K(joined)(K(exp_lifted)(c, &from, group[v]));
            least = K(min)(group[v], least);
        }
        if (K(any)(K(lt)(least, small)))
            EACH_VECTOR(v) group[v] = K(unlifted)(K(times)(group[v], &lifted));
        else
            EACH_VECTOR(v) group[v] = K(times)(group[v], &plain);
        K(store_group)(y + i, high - i, group);
    }
}

static void K(softmax_emit)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                            double *state)
{
    if (K(keeps_exponentials)(call))
        K(softmax_quotients)(call, row, low, high, state, 1);
    else
        K(softmax_quotients)(call, row, low, high, state, 0);
}

static void K(softmax_few)(const klce_call *call, ptrdiff_t row)
{
    const K(expsum_context) *c = K(context)(call);
    double state[KLCE_FIELDS * KLCE_TILE];
    K(v) e[KLCE_TILE / WIDTH][LANES], others[LANES], parts[LANES];
    K(v) zero = K(set)(0), one = K(set)(1), small = K(set)(LIFTED_SMALL);
    for (int w = 0; w < KLCE_TILE / WIDTH; w++) {
        int i = w * WIDTH;
        K(load_columns)(call, 0, row + i, e[w]);
        K(v) max = K(set)((real)-INFINITY), ties = -one;
        for (ptrdiff_t j = 0; j < call->n; j++)
            max = K(max)(e[w][j], max);
        K(references) r = K(references_of)(c, max, LIFT, LOWEST);
        for (ptrdiff_t j = 0; j < call->n; j++) {
            K(m) is_top = K(eq)(e[w][j], max);
            K(exp_pair) pair = K(exp_lifted)(c, &r.from, e[w][j]);
            K(v) scale = K(select)(is_top, zero, pair.scale);
            ties = ties + K(select)(is_top, one, zero);
            others[j] = scale;
            parts[j] = pair.t * scale;
            e[w][j] = K(joined)(pair);
        }
        K(store_field)(state + FIELD(MAX) + i, max);
        K(store_field)(state + FIELD(ORIGIN) + i, r.origin);
        K(store_field)(state + FIELD(REF) + i, r.ref);
        K(store_field)(state + FIELD(TIES) + i, ties);
        K(sum_column_pairs)(others, parts, call->n, state + FIELD(REST) + i);
    }
    K(softmax_finish)(call, row, KLCE_TILE, state);
    for (int w = 0; w < KLCE_TILE / WIDTH; w++) {
        K(factor) plain = K(factor_of)(state, w * WIDTH, 1, UNLIFT);
        K(factor) lifted = K(factor_of)(state, w * WIDTH, 1, 1);
        for (ptrdiff_t j = 0; j < call->n; j++)
            e[w][j] = K(any)(K(lt)(e[w][j], small)) ? K(unlifted)(K(times)(e[w][j], &lifted))
                                                    : K(times)(e[w][j], &plain);
        K(store_columns)(call, 2, row + w * WIDTH, e[w]);
    }
}

static const klce_kernel K(softmax_kernel) = {
    .prepare = K(softmax_prepare),
    .pass = {{K(softmax_sweep), K(expsum_merge), K(softmax_finish)}, {K(softmax_emit), NULL, NULL}},
    .few = K(softmax_few),
};

#undef LIFT
#undef LOWEST
#undef UNLIFT
#undef LIFTED_SMALL
#undef LIFTED_NORMAL
#undef NEGLIGIBLE
#undef EXPONENT_SHIFT
