/* KL divergence of probabilities p, q.  With u = (q - p)/p each class gives
 * p (u - log1p(u)) = q - p - p log(q/p), never negative, and the sums of p and of q - p beside it
 * take care of the scale: KL = T/P - (s - log1p(s)), s = (Q - P)/P.  Nothing is subtracted that
 * was rounded as a logarithm.  Or, with normalize = 0, the plain sum of p log(p/q).
 */

enum { K(KL_TERMS), K(KL_MASS), K(KL_GAIN) }; /* sums of the terms, of p, of q - p */

#if KLCE_REAL_IS_F64
#define SMALLEST_NORMAL 0x1p-1022
#define INTEGER_BITS 0x4330000000000000 /* or-ed to bits below 2^52: 2^52 + that integer */
#define INTEGER_ONE 0x1p52
#define SUBNORMAL_LIFT 54
#define SUBNORMAL_UNIT 0x1p-1020 /* 2^(SUBNORMAL_LIFT - 1074) */
#define LN2 0x1.62e42fefa39efp-1
#else
#define SMALLEST_NORMAL 0x1p-126f
#define INTEGER_BITS 0x4b000000
#define INTEGER_ONE 0x1p23f
#define SUBNORMAL_LIFT 24
#define SUBNORMAL_UNIT 0x1p-125f
#define LN2 0x1.62e43p-1f
#endif

/* About 30 instructions a vector in float32, one of them a division.  `careful` serves groups with
 * a p or q that is 0, subnormal or negative. */
KLCE_INLINE void K(kl_probs_group)(const K(v) * p, const K(v) * q, int careful, int normalize,
                                   K(v) * terms, K(v) * mass, K(v) * gain)
{
    EACH_VECTOR(v)
    {
        K(v) zero = K(set)(0), tiny = K(set)(SMALLEST_NORMAL);
        K(v) d = q[v] - p[v], q_normal = q[v], p_normal = p[v], lift = zero;
        if (careful) {
            /* A subnormal q is the integer of its bits: lifted without touching the number, since
             * arithmetic on it is slow.  A p below the normal numbers counts as 0. */
            K(v) lifted = K(from_bits)(K(to_bits)(q[v]) | K(set_bits)(INTEGER_BITS));
            K(m) low = K(lt)(q[v], tiny);
            lifted = (lifted - K(set)(INTEGER_ONE)) * K(set)(SUBNORMAL_UNIT);
            q_normal = K(select)(low, lifted, q[v]);
            lift = K(select)(low, K(set)(SUBNORMAL_LIFT), zero);
            p_normal = K(max)(tiny, p[v]);
        }
        K(v) inverse = K(set)(1) / p_normal, u = d * inverse;
        K(log_parts) parts = K(log_reduce)(q_normal * inverse);
        K(v) k = K(float_of)(parts.k) - lift;
        /* k = 0: q/p within [0.7, 1.42], where u keeps the digits that q/p - 1 has lost. */
        K(m) near = K(eq)(k, zero);
        K(v) f = K(select)(near, u, parts.f), tail = K(log1p_tail)(f);
        K(v) line = K(fma)(k, K(set)(LN2), f); /* log(q/p) + tail */
        K(v) term;
        if (normalize)
            term = K(fma)(p[v], tail, K(select)(near, zero, K(fma)(-p[v], line, d)));
        else
            term = p[v] * (tail - line);
        if (careful) {
            K(m) no_q = K(eq)(q[v], zero);
            term = K(select)(K(lt)(p[v], tiny), normalize ? d : zero, term);
            term = K(select)(K(and)(no_q, K(lt)(zero, p[v])), K(set)((real)INFINITY), term);
            term = K(select)(K(or)(K(lt)(p[v], zero), K(lt)(q[v], zero)), K(set)((real)NAN), term);
            term = term + (q[v] - q[v]) * zero; /* a q of nan or inf, whatever p is */
        }
        terms[v] = terms[v] + term;
        if (normalize) {
            mass[v] = mass[v] + p[v];
            gain[v] = gain[v] + d;
        }
    }
}

KLCE_INLINE void K(kl_probs)(const real *p, const real *q, ptrdiff_t n, double *state,
                             int normalize)
{
    K(lanes) terms = K(no_lanes)(), mass = K(no_lanes)(), gain = K(no_lanes)();
    K(v) p_group[VECTORS], q_group[VECTORS];
    K(v) term_sum[VECTORS], mass_sum[VECTORS], gain_sum[VECTORS];
    for (ptrdiff_t i = 0; i < n; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, n);
        EACH_VECTOR(v) term_sum[v] = mass_sum[v] = gain_sum[v] = K(set)(0);
        for (ptrdiff_t j = i; j < end; j += LANES) {
            K(v) least = K(set)(SMALLEST_NORMAL);
            K(load_group)(p + j, end - j, 0, p_group);
            K(load_group)(q + j, end - j, 0, q_group);
            EACH_VECTOR(v) least = K(min)(K(min)(p_group[v], q_group[v]), least);
            if (K(any)(K(lt)(least, K(set)(SMALLEST_NORMAL))))
                K(kl_probs_group)(p_group, q_group, 1, normalize, term_sum, mass_sum, gain_sum);
            else
                K(kl_probs_group)(p_group, q_group, 0, normalize, term_sum, mass_sum, gain_sum);
        }
        K(add_lanes)(&terms, term_sum);
        if (normalize) {
            K(add_lanes)(&mass, mass_sum);
            K(add_lanes)(&gain, gain_sum);
        }
    }
    state[K(KL_TERMS) * KLCE_TILE] = K(total)(&terms);
    state[K(KL_MASS) * KLCE_TILE] = K(total)(&mass);
    state[K(KL_GAIN) * KLCE_TILE] = K(total)(&gain);
}

static void K(kl_probs_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                     ptrdiff_t high, double *state)
{
    const real *p = K(row_in)(call, 0, row) + low, *q = K(row_in)(call, 1, row) + low;
    if (*(const int64_t *)call->arg[2])
        K(kl_probs)(p, q, high - low, state, 1);
    else
        K(kl_probs)(p, q, high - low, state, 0);
}

static void K(kl_probs_merge)(const klce_call *call, ptrdiff_t row, double *into,
                                     const double *from)
{
    (void)call, (void)row;
    into[K(KL_TERMS) * KLCE_TILE] += from[K(KL_TERMS) * KLCE_TILE];
    into[K(KL_MASS) * KLCE_TILE] += from[K(KL_MASS) * KLCE_TILE];
    into[K(KL_GAIN) * KLCE_TILE] += from[K(KL_GAIN) * KLCE_TILE];
}

static void K(kl_probs_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                      double *state)
{
    int normalize = *(const int64_t *)call->arg[2] != 0;
    double result[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 kl = K(state)(state, K(KL_TERMS), i), mass = K(state)(state, K(KL_MASS), i);
        if (normalize) {
            v_f64 zero = set_f64(0), s = K(state)(state, K(KL_GAIN), i) / mass;
            /* Rounding may leave less than nothing. */
            kl = max_f64(zero, kl / mass - log1p_gap_f64(s));
            /* Either side sums to 0: no distribution. */
            m_f64 empty = or_f64(eq_f64(mass, zero), eq_f64(s, set_f64(-1)));
            kl = select_f64(empty, set_f64(NAN), kl);
        }
        store_f64(result + i, kl);
    }
    K(put)(call, 3, row, count, result);
}

static void K(kl_probs_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(drive)(call, low, high, K(kl_probs_sweep), K(kl_probs_merge), K(kl_probs_finish), NULL, NULL,
             NULL);
}

static const klce_kernel K(kl_probs_kernel) = {
    .rows = K(kl_probs_rows),
    .pass = {{K(kl_probs_sweep), K(kl_probs_merge), K(kl_probs_finish)}},
};

#undef SMALLEST_NORMAL
#undef INTEGER_BITS
#undef INTEGER_ONE
#undef SUBNORMAL_LIFT
#undef SUBNORMAL_UNIT
#undef LN2
