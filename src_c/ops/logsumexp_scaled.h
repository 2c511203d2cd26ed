/* logsumexp with factors: log|sum b exp(x)| and the sign of the sum.
 *
 * A term's size is exp(z), z = x + log|b|, in float64.  The largest stays out of the sum, as in
 * expsum.h, and the others are summed by sign, so that the two sums are each without cancellation;
 * they meet once, in own + (those of the largest's sign - the rest).  Classes with b = 0 do not
 * count.
 *
 * With X, B and Z of the largest term, a term is |b| exp(x - X), in units of a power of two near
 * B: neither x - X nor a factor is rounded, so that what terms of both signs leave keeps the digits
 * that it has.  Where x is too far from X for that, or the largest is infinite, it is as much as
 * exp(z - Z) of the largest.
 */

/* Of the largest term z, its b's sign, its x (nan if it is infinite), the unit's inverse and |b| in
 * that unit; and the sums of the others by sign. */
enum { K(TOP), K(TOP_SIGN), K(TOP_X), K(PER_UNIT), K(OWN), K(PLUS), K(MINUS) };
LAST_FIELD(MINUS);

#define FARTHEST 300 /* |x - X|: with it and the other exponents nothing overflows */

static void K(no_top)(double *state)
{
    state[FIELD(TOP)] = -INFINITY;
    state[FIELD(TOP_X)] = NAN;
    state[FIELD(PER_UNIT)] = state[FIELD(OWN)] = 1;
    state[FIELD(TOP_SIGN)] = state[FIELD(PLUS)] = state[FIELD(MINUS)] = 0;
}

/* Makes x with the factor b the largest, without the sums. */
static void K(name_top)(double *state, double top, double x, double b)
{
    int finite = fabs(top) < INFINITY, power = finite ? -ilogb(b) : 0;
    power = power > 1000 ? 1000 : power; /* of a subnormal b */
    state[FIELD(TOP)] = top;
    state[FIELD(TOP_SIGN)] = b > 0 ? 1 : -1;
    state[FIELD(TOP_X)] = finite ? x : NAN;
    state[FIELD(PER_UNIT)] = ldexp(1, power);
    state[FIELD(OWN)] = finite ? ldexp(fabs(b), power) : 1;
}

/* What takes sums beside one largest term to those beside another. */
static KLCE_NOINLINE double K(between_tops)(const K(expsum_context) *c, const double *from,
                                            const double *to)
{
    double apart = from[FIELD(TOP_X)] - to[FIELD(TOP_X)];
    double units = to[FIELD(PER_UNIT)] / from[FIELD(PER_UNIT)];
    if (from[FIELD(TOP)] == -INFINITY)
        return 0;
    if (fabs(apart) <= FARTHEST && units >= 0x1p-500 && units <= 0x1p500)
        return K(exp_of)(c, apart) * units;
    double z = from[FIELD(TOP)] == to[FIELD(TOP)] ? 0 : from[FIELD(TOP)] - to[FIELD(TOP)];
    return K(exp_of)(c, z) * (to[FIELD(OWN)] / from[FIELD(OWN)]);
}

/* The sums beside one largest term, and itself, beside another. */
KLCE_INLINE double K(beside)(const double *from, int sums, double sign, double factor)
{
    double own = from[FIELD(TOP_SIGN)] == sign ? from[FIELD(OWN)] : 0;
    return (from[sums] + own) * factor;
}

static void K(logsumexp_scaled_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                      ptrdiff_t high, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    const elem *x = K(row_in)(call, 0, row), *b = K(row_in)(call, 1, row);
    K(lanes) plus = K(no_lanes)(), minus = K(no_lanes)();
    K(v) group[VECTORS];
    v_f64 wide[DOUBLES], factor[DOUBLES], plus_sum[DOUBLES], minus_sum[DOUBLES], zero = set_f64(0);
    double z[FLUSH];
    K(no_top)(state);
    for (ptrdiff_t start = low; start < high; start += FLUSH) {
        ptrdiff_t length = KLCE_LESSER(FLUSH, high - start);
        v_f64 most = set_f64(-INFINITY);
        for (ptrdiff_t j = 0; j < length; j += LANES) {
            K(load_group)(x + start + j, length - j, (real)-INFINITY, group);
            K(widen_group)(group, wide);
            K(load_group)(b + start + j, length - j, 0, group);
            K(widen_group)(group, factor);
            for (int v = 0; v < DOUBLES; v++) {
                v_f64 term = wide[v] + log_f64(max_f64(factor[v], -factor[v]));
                term = select_f64(eq_f64(factor[v], zero), set_f64(-INFINITY), term);
                most = max_f64(term, most);
                store_f64(z + j + v * KLCE_WIDTH_f64, term);
            }
        }
        double top = hmax_f64(most);
        if (top > state[FIELD(TOP)]) {
            double before[KLCE_FIELDS * KLCE_TILE];
            for (int f = K(TOP); f <= K(MINUS); f++)
                before[f * KLCE_TILE] = state[f * KLCE_TILE];
            ptrdiff_t k = 0;
            while (z[k] != top)
                k++;
            K(name_top)(state, top, K(value)(x[start + k]), K(value)(b[start + k]));
            double factor = K(between_tops)(c, before, state);
            K(scale_lanes)(&plus, factor);
            K(scale_lanes)(&minus, factor);
            state[FIELD(PLUS)] = K(beside)(before, FIELD(PLUS), 1, factor);
            state[FIELD(MINUS)] = K(beside)(before, FIELD(MINUS), -1, factor);
            z[k] = -INFINITY;
        }
        v_f64 is_top = set_f64(state[FIELD(TOP)]), top_x = set_f64(state[FIELD(TOP_X)]);
        v_f64 base = select_f64(eq_f64(is_top, set_f64(-INFINITY)), zero, is_top);
        v_f64 per_unit = set_f64(state[FIELD(PER_UNIT)]), own = set_f64(state[FIELD(OWN)]);
        for (int v = 0; v < DOUBLES; v++)
            plus_sum[v] = minus_sum[v] = zero;
        for (ptrdiff_t j = 0; j < length; j += LANES) {
            K(load_group)(x + start + j, length - j, (real)-INFINITY, group);
            K(widen_group)(group, wide);
            K(load_group)(b + start + j, length - j, 0, group);
            K(widen_group)(group, factor);
            for (int v = 0; v < DOUBLES; v++) {
                v_f64 term = load_f64(z + j + v * KLCE_WIDTH_f64), apart = wide[v] - top_x;
                m_f64 near = le_f64(max_f64(apart, -apart), set_f64(FARTHEST));
                near = and_f64(near, eq_f64(apart, apart));
                /* inf - inf, too, is 0 here. */
                v_f64 d = select_f64(eq_f64(term, base), zero, term - base);
                v_f64 size = max_f64(factor[v], -factor[v]) * per_unit;
                v_f64 e = exp_f64(&c->f, select_f64(near, apart, d), 1);
                e = e * select_f64(near, size, own);
                e = select_f64(eq_f64(term, set_f64(-INFINITY)), zero, e);
                m_f64 positive = lt_f64(zero, factor[v]);
                plus_sum[v] = plus_sum[v] + select_f64(positive, e, zero);
                minus_sum[v] = minus_sum[v] + select_f64(positive, zero, e);
            }
        }
        K(add_wide)(&plus, plus_sum);
        K(add_wide)(&minus, minus_sum);
    }
    state[FIELD(PLUS)] += K(total)(&plus);
    state[FIELD(MINUS)] += K(total)(&minus);
}

static void K(logsumexp_scaled_merge)(const klce_call *call, double *into, const double *from)
{
    const double *low = from[FIELD(TOP)] > into[FIELD(TOP)] ? into : from;
    const double *high = low == into ? from : into;
    /* A side without terms has sums of 0, or nan. */
    double factor = low[FIELD(TOP)] == -INFINITY ? 1 : K(between_tops)(K(context)(call), low, high);
    double plus = high[FIELD(PLUS)] + K(beside)(low, FIELD(PLUS), 1, factor);
    double minus = high[FIELD(MINUS)] + K(beside)(low, FIELD(MINUS), -1, factor);
    for (int f = K(TOP); f <= K(OWN); f++)
        into[f * KLCE_TILE] = high[f * KLCE_TILE];
    into[FIELD(PLUS)] = plus;
    into[FIELD(MINUS)] = minus;
}

static void K(logsumexp_scaled_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                       double *state)
{
    int any_sign = *(const int64_t *)call->arg[2] != 0;
    double result[KLCE_TILE], signs[KLCE_TILE];
    v_f64 zero = set_f64(0), one = set_f64(1), infinite = set_f64(INFINITY), none = set_f64(NAN);
    EACH_STATE(i, count)
    {
        v_f64 top = K(state)(state, K(TOP), i), of_top = K(state)(state, K(TOP_SIGN), i);
        v_f64 own = K(state)(state, K(OWN), i), inverse = one / own;
        v_f64 plus = K(state)(state, K(PLUS), i), minus = K(state)(state, K(MINUS), i);
        m_f64 is_positive = lt_f64(zero, of_top);
        v_f64 with = select_f64(is_positive, plus, minus), valid = plus + minus;
        v_f64 against = select_f64(is_positive, minus, plus);
        /* 1 + rest: as 1 plus something from -1 up, so that it keeps its digits near 1; where the
         * largest cancels, by what the terms of its sign add to what is left of it. */
        v_f64 rest = (with - against) * inverse, left = ((own - against) + with) * inverse;
        v_f64 size = max_f64(left, -left);
        m_f64 flips = lt_f64(left, zero), cancels = lt_f64(size, set_f64(0.5));
        v_f64 log = log1p_f64(select_f64(flips, -(set_f64(2) + rest), rest));
        log = select_f64(cancels, log_f64(size), log);
        log = select_f64(eq_f64(left, zero), -infinite, log) + top;
        v_f64 sign = select_f64(flips, -of_top, select_f64(eq_f64(left, zero), zero, of_top));
        /* Infinite terms of both signs. */
        m_f64 undefined = and_f64(eq_f64(top, infinite), lt_f64(zero, against));
        log = select_f64(eq_f64(top, -infinite), top, log);
        undefined = or_f64(undefined, not_f64(eq_f64(valid, valid)));
        sign = select_f64(undefined, none, sign);
        m_f64 refused = any_sign ? undefined : or_f64(undefined, lt_f64(sign, zero));
        store_f64(result + i, select_f64(refused, none, log));
        store_f64(signs + i, sign);
    }
    K(put)(call, 3, row, count, result);
    K(put)(call, 4, row, count, signs);
}

#undef FARTHEST

static const klce_kernel K(logsumexp_scaled_kernel) = {
    .prepare = K(unit_prepare),
    .pass = {{K(logsumexp_scaled_sweep), SHARED(logsumexp_scaled_merge),
              SHARED(logsumexp_scaled_finish)}},
};
