/* KL divergence of logits x (of p) and y (of q).
 *
 * The first sweep takes both normalisers; the second, over the rows in cache, sums with
 * d = (y - x)/T - c, c the difference of the normalisers: d = log(q/p), and with w ~ p
 *     A = sum w,  terms = sum w (exp(d) - 1 - d),  drift = sum w (exp(d) - 1),
 *     KL = terms/A - (s - log1p(s)),  s = drift/A.
 * The terms are never negative and small where the rows are near; the drift is what rounding of c
 * left, and its effect is taken out.
 */

/* 0 to 3 are x's MAX, REST, ORIGIN, REF; 4 to 7 y's, of which finish makes: */
enum { K(OFFSET) = 4, K(TERMS) = 6, K(DRIFT) = 7, K(OTHER) = 4 };

/* Beyond, the rounding of d would show in exp(d): 2.4e-7 in each of two steps in float32. */
#define KL_FAR 8

static void K(kl_logits_normalizers)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                     ptrdiff_t high, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    K(sum_exp)(c, K(row_in)(call, 0, row) + low, high - low, state);
    K(sum_exp)(c, K(row_in)(call, 1, row) + low, high - low, state + FIELD(OTHER));
}

static void K(kl_logits_merge)(const klce_call *call, double *into, const double *from)
{
    K(expsum_merge)(call, into, from);
    K(expsum_merge)(call, into + FIELD(OTHER), from + FIELD(OTHER));
}

/* OFFSET: T*c, in the units of the logits; nan where a row is no distribution. */
static void K(kl_logits_offset)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *state)
{
    const K(expsum_context) *c = K(context)(call);
    double *other = state + FIELD(OTHER);
    (void)row;
    EACH_STATE(i, count)
    {
        v_f64 log_x = log1p_f64(K(rest_of)(c, state, i));
        v_f64 log_y = log1p_f64(K(rest_of)(c, other, i));
        v_f64 step = K(state)(other, K(MAX), i) - K(state)(state, K(MAX), i);
        v_f64 offset = step + set_f64(c->t) * (log_y - log_x);
        store_f64(state + FIELD(OFFSET) + i, offset + (offset - offset));
    }
}

/* What the second sweep measures a row by: its reference, and the offset in two pieces. */
typedef struct {
    K(measure) from;
    K(v) offset, offset_low;
    K(v) base, base_low; /* origin + offset: what y is measured from */
} K(kl_measure);

/* The offsets of the rows whose lanes these are: `step` 1 for neighbours, 0 for one row. */
KLCE_INLINE K(kl_measure) K(kl_measure_of)(K(measure) from, const double *state, int i, int step)
{
    real high[WIDTH], low[WIDTH], base[WIDTH], base_low[WIDTH];
    for (int k = 0; k < WIDTH; k++) {
        double offset = state[FIELD(OFFSET) + i + k * step];
        double origin = state[FIELD(ORIGIN) + i + k * step], sum = offset + origin;
        double part = sum - offset, error = (offset - (sum - part)) + (origin - part);
        high[k] = (real)offset;
        low[k] = (real)(offset - high[k]);
        base[k] = (real)sum;
        base_low[k] = (real)((sum - base[k]) + error);
    }
    return (K(kl_measure)){from, V(load)(high), V(load)(low), V(load)(base), V(load)(base_low)};
}

/* A class's terms, and what compare.h makes others of: w and q, to the row's reference, d over T,
 * exp(d) and exp(d) - 1.  The masks are of the careful way: q has an exponential of its own, and p, or q, is 0. */
typedef struct {
    K(v) term, moved, w, q, slope, ratio, gain;
    K(m) is_far, no_p, no_q;
} K(kl_parts);

/* One class: about 55 instructions a vector in float32.  `careful` serves groups with a d that is
 * infinite or beyond KL_FAR, for which q is computed by an exponential of its own; *beyond is set
 * where that is needed and was not done. */
KLCE_INLINE K(kl_parts) K(kl_logits_term)(const K(expsum_context) *c, const K(kl_measure) *by,
                                          int careful, K(v) x, K(v) y, int *beyond)
{
    K(v) far = K(set)((real)(KL_FAR * c->t)), near = K(set)((real)(-60 * c->t));
    K(v) zero = K(set)(0), one = K(set)(1), inverse = K(set)(c->e.c1);
    K(v) w = K(exp_measured)(c, &by->from, K(max)(by->from.floor, x - by->from.origin));
    /* y - x without error (Knuth's two-sum), then less the offset. */
    K(v) s = y - x, t = s - y, error = (y - (s - t)) - (x + t);
    K(v) d = (s - by->offset) + (error - by->offset_low);
    if (careful) {
        K(m) infinite = K(not)(K(lt)(K(max)(s, -s), K(set)((real)INFINITY)));
        d = K(select)(infinite, s, d);
    } else {
        /* A p below the floor, too: the careful way alone may say what it comes to. */
        K(m) below = K(lt)(x - by->from.origin, by->from.floor);
        *beyond |= K(any)(K(or)(below, K(not)(K(lt)(d, far))));
    }
    K(exp_parts)
    parts = K(exp_reduce)(&c->e, K(max)(near, d), K(set)(K(KLCE_MAGIC) + K(KLCE_BIAS)));
    K(v) r = parts.r, slope = d * inverse;
    /* exp(d) - 1 - d with exp(d) = 2^n (1 + r + r^2 q): for n = 0 just r^2 q. */
    K(v) bend = r * r * K(exp_poly)(&c->e, r);
    K(v) line = K(fma)(parts.scale, r * inverse, parts.scale - one) - slope;
    K(v) excess = K(fma)(parts.scale, bend, line);
    K(v) ratio = K(fma)(parts.scale, K(fma)(r, inverse, bend), parts.scale);
    K(kl_parts) result = {.term = w * excess,
                          .moved = w * (excess + slope),
                          .w = w,
                          .q = w * ratio,
                          .slope = slope,
                          .ratio = ratio,
                          .gain = K(fma)(parts.scale, K(fma)(r, inverse, bend), parts.scale - one)};
    if (careful) {
        /* y - base with what rounding takes from it: a z of 20 alone is off by 1e-6 in float32. */
        K(v) z0 = y - by->base, back = z0 - y, z = z0 - by->base_low;
        K(v) z_low = ((y - (z0 - back)) - (by->base + back)) + ((z0 - z) - by->base_low);
        K(v) q = K(exp_measured)(c, &by->from, K(max)(by->from.floor, z));
        q = K(fma)(q * inverse, z_low, q);
        q = K(select)(K(lt)(z, by->from.floor), zero, q);
        /* Below the floor p is 0 beside any q, but for a q that is 0 itself. */
        K(v) least = K(set)((real)-INFINITY);
        K(m) is_far = K(lt)(far, d), no_p = K(lt)(x - by->from.origin, by->from.floor);
        K(m) no_q = K (and)(K(eq)(y, least), K(lt)(least, x));
        result.term = K(select)(is_far, q - w * (one + slope), result.term);
        result.moved = K(select)(is_far, q - w, result.moved);
        result.term = K(select)(no_p, q, result.term);
        result.moved = K(select)(no_p, q, result.moved);
        result.term = K(select)(no_q, K(set)((real)INFINITY), result.term);
        result.moved = K(select)(no_q, -w, result.moved);
        result.q = K(select)(K(or)(is_far, no_p), q, result.q);
        result.q = K(select)(no_q, zero, result.q);
        result.is_far = is_far;
        result.no_p = no_p;
        result.no_q = no_q;
    }
    return result;
}

static void K(kl_logits_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                               double *state)
{
    const K(expsum_context) *c = K(context)(call);
    const elem *x = K(row_in)(call, 0, row), *y = K(row_in)(call, 1, row);
    K(measure) from =
        K(measure_from)(c, (real)state[FIELD(ORIGIN)], (real)state[FIELD(REF)], BOOST, FLOOR);
    K(kl_measure) by = K(kl_measure_of)(from, state, 0, 0);
    K(kl_parts) parts[VECTORS];
    K(lanes) terms = K(no_lanes)(), drift = K(no_lanes)();
    K(v) x_group[VECTORS], y_group[VECTORS], term_sum[VECTORS], drift_sum[VECTORS];
    for (ptrdiff_t i = low; i < high; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, high);
        EACH_VECTOR(v) term_sum[v] = drift_sum[v] = K(set)(0);
        for (ptrdiff_t j = i; j < end; j += LANES) {
            K(load_group)(x + j, end - j, (real)-INFINITY, x_group);
            K(load_group)(y + j, end - j, (real)-INFINITY, y_group);
            int beyond = 0;
            EACH_VECTOR(v)
            parts[v] = K(kl_logits_term)(c, &by, 0, x_group[v], y_group[v], &beyond);
            if (beyond)
                EACH_VECTOR(v)
            parts[v] = K(kl_logits_term)(c, &by, 1, x_group[v], y_group[v], &beyond);
            EACH_VECTOR(v)
            {
                term_sum[v] = term_sum[v] + parts[v].term;
                drift_sum[v] = drift_sum[v] + parts[v].moved;
            }
        }
        K(add_lanes)(&terms, term_sum);
        K(add_lanes)(&drift, drift_sum);
    }
    state[FIELD(TERMS)] = K(total)(&terms);
    state[FIELD(DRIFT)] = K(total)(&drift);
}

static void K(kl_logits_add)(const klce_call *call, double *into, const double *from)
{
    (void)call;
    into[FIELD(TERMS)] += from[FIELD(TERMS)];
    into[FIELD(DRIFT)] += from[FIELD(DRIFT)];
}

static void K(kl_logits_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *state)
{
    const K(expsum_context) *c = K(context)(call);
    double result[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 mass = set_f64(1) + K(rest_of)(c, state, i);
        v_f64 scale = (set_f64(1) + K(to_maximum)(c, state, i)) * set_f64(UNBOOST) / mass;
        v_f64 s = K(state)(state, K(DRIFT), i) * scale;
        v_f64 kl = K(state)(state, K(TERMS), i) * scale - log1p_gap_f64(s);
        kl = kl + K(state)(state, K(OFFSET), i) * set_f64(0); /* nan: no distribution */
        store_f64(result + i, max_f64(set_f64(0), kl));
    }
    K(put)(call, 3, row, count, result);
}

static void K(kl_logits_prepare)(klce_call *call)
{
    K(expsum_prepare)(call, *(const double *)call->arg[2]);
}

static void K(kl_logits_few)(const klce_call *call, ptrdiff_t row)
{
    const K(expsum_context) *c = K(context)(call);
    double state[KLCE_FIELDS * KLCE_TILE];
    K(v) x[FEW], y[FEW], terms[LANES], drift[LANES];
    K(sum_exp_few)(call, 0, row, state);
    K(sum_exp_few)(call, 1, row, state + FIELD(OTHER));
    K(kl_logits_offset)(call, row, KLCE_TILE, state);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(load_columns)(call, 0, row + i, x);
        K(load_columns)(call, 1, row + i, y);
        K(references)
        r = K(references_of)(c, K(load_field)(state + FIELD(MAX) + i), BOOST, FLOOR);
        K(kl_measure) by = K(kl_measure_of)(r.from, state, i, 1);
        EACH_GROUP(group, call->n) EACH_LANE(l, group, call->n)
        {
            ptrdiff_t j = group + l;
            int beyond = 0;
            K(kl_parts) parts = K(kl_logits_term)(c, &by, 0, x[j], y[j], &beyond);
            if (beyond)
                parts = K(kl_logits_term)(c, &by, 1, x[j], y[j], &beyond);
            terms[l] = group ? terms[l] + parts.term : parts.term;
            drift[l] = group ? drift[l] + parts.moved : parts.moved;
        }
        K(sum_columns)(terms, call->n, state + FIELD(TERMS) + i);
        K(sum_columns)(drift, call->n, state + FIELD(DRIFT) + i);
    }
    K(kl_logits_finish)(call, row, KLCE_TILE, state);
}

static const klce_kernel K(kl_logits_kernel) = {
    .prepare = K(kl_logits_prepare),
    .pass = {{K(kl_logits_normalizers), K(kl_logits_merge), K(kl_logits_offset)},
             {K(kl_logits_sweep), K(kl_logits_add), K(kl_logits_finish)}},
    .few = K(kl_logits_few),
};

#undef KL_FAR
