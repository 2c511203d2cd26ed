/* KL divergence of log-probabilities as the plain sum of exp(x) (x - y). */

/* Less than BOOST in float32, since a boosted exponential meets a difference of any size: no more
 * than keeps one at the floor a normal number. */
#define PLAIN_BOOST (KLCE_REAL_IS_F64 ? 512 : 64)

enum { K(PLAIN_MAX), K(PLAIN_SUM), K(PLAIN_ORIGIN), K(PLAIN_REF) };
LAST_FIELD(PLAIN_REF);

/* Below the floor w is dust: 0, unless y is infinite and x is not, or y is nan. */
KLCE_INLINE K(v) K(kl_log_probs_of_dust)(K(v) x, K(v) y)
{
    K(v) infinity = K(set)((real)INFINITY), zero = K(set)(0);
    K(v) none = y * zero; /* nan, of an infinite y too */
    K(v) term = K(select)(K(eq)(K(max)(y, -y), infinity), -y, none);
    return K(select)(K(eq)(x, -infinity), K(select)(K(eq)(y, y), zero, none), term);
}

/* 22 instructions a vector: 2 loads, 2 to measure x, 12 of its exponential, 2 of the term, 3 to
 * look for dust, and 1 to add. */
KLCE_INLINE void K(kl_log_probs_group)(const K(expsum_context) *c, const K(measure) *from,
                                       const K(v) *x, const K(v) *y, K(v) *sum)
{
    EACH_VECTOR(v)
    {
        K(v) z = x[v] - from->origin;
        K(v) w = K(exp_measured)(c, from, K(max)(from->floor, z));
        K(v) term = w * (x[v] - y[v]);
        K(m) dust = K(lt)(z, from->floor);
        if (K(any)(dust))
            term = K(select)(dust, K(kl_log_probs_of_dust)(x[v], y[v]), term);
        sum[v] = sum[v] + term;
    }
}

/* The sum of a row that is not finite as it was summed.  Where an x or y is not, neither is the
 * sum, whatever the other terms; else the differences overflowed, and are summed one by one, halved
 * and not boosted.  An origin below 0 leaves nothing even of the largest. */
static KLCE_NOINLINE double K(kl_log_probs_anew)(const K(expsum_context) *c, const elem *x,
                                                 const elem *y, ptrdiff_t n, double *origin,
                                                 double *ref)
{
    double infinite = 0, sum = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        double own = K(value)(x[i]), other = K(value)(y[i]);
        if (own != own || other != other)
            return NAN;
        if (own > -INFINITY && (own == INFINITY || fabs(other) == INFINITY))
            infinite += own - other;
    }
    if (infinite != 0 || *origin < 0)
        return infinite;
    for (ptrdiff_t i = 0; i < n; i++) {
        double own = K(value)(x[i]), other = K(value)(y[i]);
        if (own > -INFINITY)
            sum += K(rescale)(c, own, 0, *origin, *ref) * (own * 0.5 - other * 0.5);
    }
    *ref += PLAIN_BOOST + 1;
    return sum;
}

static void K(kl_log_probs_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                  ptrdiff_t high, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    const elem *x = K(row_in)(call, 0, row), *y = K(row_in)(call, 1, row);
    real max = (real)-INFINITY, origin = 0, ref = 0;
    K(measure) from = K(measure_from)(c, origin, ref, PLAIN_BOOST, FLOOR);
    K(lanes) lanes = K(no_lanes)();
    K(v) x_group[VECTORS], y_group[VECTORS], sum[VECTORS];
    for (ptrdiff_t start = low; start < high; start += BLOCK) {
        ptrdiff_t length = KLCE_LESSER(BLOCK, high - start);
        real block_max = K(max_of)(x + start, length);
        if (block_max > max) {
            real new_origin, new_ref;
            K(reference_of)(c, block_max, &new_origin, &new_ref);
            K(scale_lanes)(&lanes, max == (real)-INFINITY
                                       ? 0
                                       : K(rescale)(c, origin, ref, new_origin, new_ref));
            max = block_max;
            origin = new_origin;
            ref = new_ref;
            from = K(measure_from)(c, origin, ref, PLAIN_BOOST, FLOOR);
        }
        for (ptrdiff_t i = start; i < start + length; i += FLUSH) {
            ptrdiff_t end = KLCE_LESSER(i + FLUSH, start + length);
            EACH_VECTOR(v) sum[v] = K(set)(0);
            for (ptrdiff_t j = i; j < end; j += LANES) {
                K(load_group)(x + j, end - j, (real)-INFINITY, x_group);
                K(load_group)(y + j, end - j, 0, y_group);
                K(kl_log_probs_group)(c, &from, x_group, y_group, sum);
            }
            K(add_lanes)(&lanes, sum);
        }
    }
    state[FIELD(PLAIN_MAX)] = max;
    state[FIELD(PLAIN_ORIGIN)] = origin;
    state[FIELD(PLAIN_REF)] = ref;
    double total = K(total)(&lanes);
    if (!(fabs(total) < INFINITY) || max == (real)INFINITY)
        total = K(kl_log_probs_anew)(c, x + low, y + low, high - low, state + FIELD(PLAIN_ORIGIN),
                                     state + FIELD(PLAIN_REF));
    state[FIELD(PLAIN_SUM)] = total;
}

static void K(kl_log_probs_merge)(const klce_call *call, double *into, const double *from)
{
    enum { M = FIELD(PLAIN_MAX), S = FIELD(PLAIN_SUM) };
    enum { O = FIELD(PLAIN_ORIGIN), N = FIELD(PLAIN_REF) };
    int from_wins = from[M] > into[M];
    const double *low = from_wins ? into : from, *high = from_wins ? from : into;
    double factor = 1; /* what is not finite stays */
    if (fabs(high[M]) < INFINITY && low[M] > -INFINITY && fabs(low[S]) < INFINITY)
        factor = K(rescale)(K(context)(call), low[O], low[N], high[O], high[N]);
    double sum = high[S] + low[S] * factor, max = high[M], origin = high[O], ref = high[N];
    into[M] = max;
    into[S] = sum;
    into[O] = origin;
    into[N] = ref;
}

static void K(kl_log_probs_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                   double *state)
{
    const K(expsum_context) *c = K(context)(call);
    double result[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 sum = K(state)(state, K(PLAIN_SUM), i), origin = K(state)(state, K(PLAIN_ORIGIN), i);
        v_f64 finite = sum * exp_f64(&c->f, origin, 1);
        store_f64(result + i, select_f64(eq_f64(sum - sum, set_f64(0)), finite, sum));
    }
    /* Back from the reference, by an exponent that float64 alone may not have; of -0, 0. */
    for (ptrdiff_t i = 0; i < count; i++)
        result[i] = ldexp(result[i], (int)state[FIELD(PLAIN_REF) + i] - PLAIN_BOOST) + 0;
    K(put)(call, 2, row, count, result);
}

static const klce_kernel K(kl_log_probs_kernel) = {
    .prepare = K(unit_prepare),
    .pass = {{K(kl_log_probs_sweep), SHARED(kl_log_probs_merge), SHARED(kl_log_probs_finish)}},
};

#undef PLAIN_BOOST
