/* KL divergence of probabilities p, q.  With u = (q - p)/p each class gives
 * p (u - log1p(u)) = q - p - p log(q/p), never negative, and the sums of p and of q - p beside it
 * take care of the scale: KL = T/P - (s - log1p(s)), s = (Q - P)/P.  Nothing is subtracted that
 * was rounded as a logarithm.  Or, with normalize = 0, the plain sum of p log(p/q).
 */

enum { K(KL_TERMS), K(KL_MASS), K(KL_GAIN) }; /* sums of the terms, of p, of q - p */
LAST_FIELD(KL_GAIN);

#if KLCE_REAL_IS_F64
#define SUBNORMAL_LIFT 54
#define SMALL_P 0x1p-900         /* d/p stays finite above */
#define SUBNORMAL_UNIT 0x1p-1020 /* 2^(SUBNORMAL_LIFT - 1074) */
#else
#define SUBNORMAL_LIFT 24
#define SMALL_P 0x1p-149f
#define SUBNORMAL_UNIT 0x1p-125f
#endif

/* Of rows of few classes the sums have as many lanes, which are taken out after as many classes. */
#define TERM_LANES (LANES / 2)
#define TERM_FLUSH (4 * TERM_LANES)

/* What vectors hold beside probabilities of which nothing special is to be said: some that are 0,
 * or negative; some that are small. */
typedef enum { K(NOTHING), K(ZEROS), K(SMALL_ONES) } K(special);

KLCE_INLINE K(special) K(special_of)(K(v) least, const K(v) *p, const K(v) *q, ptrdiff_t n)
{
    if (!K(any)(K(lt)(least, K(set)(SMALL))))
        return K(NOTHING);
    return K(any_small)(p, n) || K(any_small)(q, n) ? K(SMALL_ONES) : K(ZEROS);
}

KLCE_INLINE int K(kl_normalizes)(const klce_call *call)
{
    return *(const int64_t *)call->arg[2] != 0;
}

/* About 25 instructions a vector, one of them a division.  With f = (q 2^-k - p)/p, whose numerator
 * d is exact, s = f/(2 + f) is d over the sum instead of the difference, and
 * p (f - log1p(f)) = s (d - p s (log1p(f) - 2s)).  So of 1/p there is no need. */
KLCE_INLINE K(term) K(kl_probs_term)(K(v) p, K(v) q, K(special) special, int normalize)
{
    K(v) zero = K(set)(0), one = K(set)(1), tiny = K(set)(SMALLEST_NORMAL);
    K(v) own = special ? K(max)(K(set)(SMALL), p) : p; /* as good as any where p is 0 */
    K(v) high_q = q, whole = q, lift = zero;
    K(m) is_raised = K(lt)(p, K(set)(SMALL));
    if (special == K(SMALL_ONES)) {
        /* A subnormal q is lifted by its bits, since arithmetic on it is slow.  A p below the
         * normal numbers counts as 0. */
        K(m) low_q = K(lt)(q, tiny);
        high_q = K(select)(low_q, K(subnormal_units)(q) * K(set)(SUBNORMAL_UNIT), q);
        lift = K(select)(low_q, K(set)(SUBNORMAL_LIFT), zero);
        /* Where p is small, all is 2^RAISE times what it is; but a q from 1 on is far from p, and
         * is the term. */
        if (normalize)
            is_raised = K (and)(is_raised, K(lt)(q, one));
        own = K(max)(tiny, p) * K(select)(is_raised, K(set)(RAISED), one);
        whole = K(select)(is_raised, K(raised)(q), q);
        lift = lift - K(select)(is_raised, K(set)(RAISE), zero);
    }
    /* A fourth of p, where nothing else catches sums that are infinite. */
    K(v) base = normalize ? own : own * K(set)((real)0.25);
    K(b) exponent = K(quotient_exponent)(high_q, base);
    K(v) k = K(float_of)(exponent) - (normalize ? lift : lift + K(set)(2));
    K(v) scaled = K(from_bits)(K(to_bits)(high_q) - K(shift_to_exponent)(exponent));
    K(v) d = scaled - base, s = d / (scaled + base);
    K(v) bend = s * K(fma)(-base, K(log1p_by_square)(s * s), d); /* base (f - log1p(f)) */
    K(v) log = k * K(set)(K(KLCE_LN2));
    /* For k = 0, where q is scaled, nothing comes beside the bend. */
    K(term)
    term = {normalize ? bend + K(fma)(-own, log, whole - scaled)
                      : K(fma)(K(set)(4), bend - d, -own * log),
            zero};
    if (special) {
        K(m) low_p = K(lt)(p, tiny), counts = K (and)(K(not)(low_p), K(lt)(zero, q));
        K(m) no_q = K (and)(K(eq)(q, zero), K(lt)(zero, p));
        K(m) negative = K(or)(K(lt)(p, zero), K(lt)(q, zero));
        if (special == K(SMALL_ONES)) {
            term.raised = K(select)(K (and)(is_raised, counts), term.plain, zero);
            term.plain = K(select)(is_raised, zero, term.plain);
        }
        term.plain = K(select)(low_p, normalize ? q - p : zero, term.plain);
        term.plain = K(select)(no_q, K(set)((real)INFINITY), term.plain);
        term.plain = K(select)(negative, K(set)((real)NAN), term.plain);
    }
    /* A nan or inf in either: with normalize the sum of q - p tells. */
    if (!normalize)
        term.plain = term.plain + ((p - p) + (q - q));
    return term;
}

/* The sums of a flush, in vectors. */
typedef struct {
    K(v) terms[VECTORS], raised[VECTORS], mass[VECTORS], gain[VECTORS];
    int any_small;
} K(kl_parts);

/* Those of n classes, to as many vectors as `parts`. */
KLCE_INLINE void K(kl_probs_flush)(const elem *p, const elem *q, ptrdiff_t n, K(kl_parts) *into,
                                   int normalize, int parts)
{
    K(v) p_group[VECTORS], q_group[VECTORS];
    into->any_small = 0;
    KLCE_UNROLL for (int v = 0; v < parts; v++) into->terms[v] = into->raised[v] = into->mass[v] =
        into->gain[v] = K(set)(0);
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        K(v) least = K(set)(SMALL);
        K(prefetch_pair)(p + j, q + j, BLOCK / 2);
        K(load_group)(p + j, n - j, 0, p_group);
        K(load_group)(q + j, n - j, 0, q_group);
        EACH_VECTOR(v) least = K(min)(K(min)(p_group[v], q_group[v]), least);
        K(special) special = K(special_of)(least, p_group, q_group, VECTORS);
        into->any_small |= special == K(SMALL_ONES);
        EACH_VECTOR(v)
        {
            K(v) own = p_group[v], other = q_group[v];
            K(term)
            term = special == K(NOTHING) ? K(kl_probs_term)(own, other, K(NOTHING), normalize)
                   : special == K(ZEROS) ? K(kl_probs_term)(own, other, K(ZEROS), normalize)
                                         : K(kl_probs_term)(own, other, K(SMALL_ONES), normalize);
            int to = v % parts;
            into->terms[to] = into->terms[to] + term.plain;
            if (special == K(SMALL_ONES))
                into->raised[to] = into->raised[to] + term.raised;
            if (normalize) {
                into->mass[to] = into->mass[to] + own;
                into->gain[to] = into->gain[to] + (other - own);
            }
        }
    }
}

KLCE_INLINE void K(kl_probs)(const elem *p, const elem *q, ptrdiff_t n, double *state,
                             int normalize)
{
    K(lanes) terms = K(no_lanes)(), raised = K(no_lanes)();
    K(lanes) mass = K(no_lanes)(), gain = K(no_lanes)();
    K(kl_parts) parts;
    for (ptrdiff_t i = 0; i < n; i += FLUSH) {
        K(kl_probs_flush)(p + i, q + i, KLCE_LESSER(FLUSH, n - i), &parts, normalize, VECTORS);
        K(add_lanes)(&terms, parts.terms);
        if (parts.any_small)
            K(add_lanes)(&raised, parts.raised);
        if (normalize) {
            K(add_lanes)(&mass, parts.mass);
            K(add_lanes)(&gain, parts.gain);
        }
    }
    state[FIELD(KL_TERMS)] = K(total)(&terms) + K(total)(&raised) * UNRAISED;
    state[FIELD(KL_MASS)] = K(total)(&mass);
    state[FIELD(KL_GAIN)] = K(total)(&gain);
}

/* A row of at most FEW classes: what kl_probs_few finds of a tile, to the bit. */
static KLCE_NOINLINE void K(kl_probs_short)(const elem *p, const elem *q, ptrdiff_t n,
                                            double *state, int normalize)
{
    K(quad_sums) terms = {0}, raised = {0}, mass = {0}, gain = {0};
    K(kl_parts) parts;
    for (ptrdiff_t i = 0; i < n; i += TERM_FLUSH) {
        ptrdiff_t count = KLCE_LESSER(TERM_FLUSH, n - i);
        if (normalize)
            K(kl_probs_flush)(p + i, q + i, count, &parts, 1, TERM_LANES / WIDTH);
        else
            K(kl_probs_flush)(p + i, q + i, count, &parts, 0, TERM_LANES / WIDTH);
        K(add_quads)(&terms, parts.terms, NULL, TERM_LANES);
        K(add_quads)(&raised, parts.raised, NULL, TERM_LANES);
        K(add_quads)(&mass, parts.mass, NULL, TERM_LANES);
        K(add_quads)(&gain, parts.gain, NULL, TERM_LANES);
    }
    state[FIELD(KL_TERMS)] = K(total_of_quads)(&terms) + K(total_of_quads)(&raised) * UNRAISED;
    state[FIELD(KL_MASS)] = K(total_of_quads)(&mass);
    state[FIELD(KL_GAIN)] = K(total_of_quads)(&gain);
}

static void K(kl_probs_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                              double *state)
{
    const elem *p = K(row_in)(call, 0, row) + low, *q = K(row_in)(call, 1, row) + low;
    int normalize = K(kl_normalizes)(call);
    if (call->n <= FEW)
        K(kl_probs_short)(p, q, call->n, state, normalize);
    else if (normalize)
        K(kl_probs)(p, q, high - low, state, 1);
    else
        K(kl_probs)(p, q, high - low, state, 0);
}

static void K(kl_probs_merge)(const klce_call *call, double *into, const double *from)
{
    (void)call;
    into[FIELD(KL_TERMS)] += from[FIELD(KL_TERMS)];
    into[FIELD(KL_MASS)] += from[FIELD(KL_MASS)];
    into[FIELD(KL_GAIN)] += from[FIELD(KL_GAIN)];
}

/* Once more, for a row whose sums P and Q differ so much that a third of the terms or more is the
 * effect of that: with q P/Q in the place of q, in float64, and without an error in the difference.
 * Both rows are taken from 1 to 2 first, by powers of two.  What roundings take from the terms is
 * kept: those of many equal classes are alike, and add up. */
static KLCE_NOINLINE double K(kl_probs_rescaled)(const elem *p, const elem *q, ptrdiff_t n,
                                                 double p_sum, double q_sum)
{
    int p_exponent = -ilogb(p_sum), q_exponent = -ilogb(q_sum);
    p_sum = scalbn(p_sum, p_exponent);
    q_sum = scalbn(q_sum, q_exponent);
    double ratio = p_sum / q_sum, ratio_low = fma(-ratio, q_sum, p_sum) / q_sum;
    int infinite = 0;
    double terms[8] = {0}, lost[8] = {0}; /* 8 lanes, for the same order on every ISA */
    double drift = 0;                     /* about 0, of which the square counts */
    for (ptrdiff_t i = 0; i < n; i += 8) {
        double mass[8] = {0}, d[8], u[8] = {0}, gap[8];
        double quotient[8] = {1, 1, 1, 1, 1, 1, 1, 1}, log[8]; /* of fractions, and */
        int exponent[8] = {0};
        ptrdiff_t count = KLCE_LESSER(8, n - i);
        for (ptrdiff_t j = 0; j < count; j++) {
            double own = K(value)(p[i + j]), other = K(value)(q[i + j]);
            double scaled = scalbn(other, q_exponent);
            mass[j] = scalbn(own, p_exponent);
            if (own < 0 || other < 0)
                return NAN;
            infinite |= own > 0 && other == 0;
            d[j] = fma(scaled, ratio, -mass[j]) + scaled * ratio_low;
            drift += d[j];
            if (mass[j] >= SMALL_P) {
                int of_own, of_other;
                u[j] = d[j] / mass[j];
                quotient[j] = frexp(other, &of_other) * ratio / frexp(own, &of_own);
                exponent[j] = (of_other + q_exponent) - (of_own + p_exponent);
            }
        }
        for (int j = 0; j < 8; j += KLCE_WIDTH_f64) {
            store_f64(gap + j, log1p_gap_f64(load_f64(u + j)));
            store_f64(log + j, log_f64(load_f64(quotient + j)));
        }
        for (ptrdiff_t j = 0; j < count; j++) {
            if (u[j] < -0.5) /* where 1 + u has lost the quotient */
                gap[j] = u[j] - (log[j] + exponent[j] * KLCE_LN2_f64);
            /* With p = 0, or next to it, the term is q. */
            double term = mass[j] >= SMALL_P ? mass[j] * gap[j] : d[j];
            ADD_KEEPING(double, terms[j], term, lost[j]);
        }
    }
    for (int half = 4; half; half /= 2)
        for (int j = 0; j < half; j++) {
            terms[j] += terms[j + half];
            lost[j] += lost[j + half];
        }
    double sum = terms[0] + lost[0];
    double kl = sum / p_sum - first_lane_f64(log1p_gap_f64(set_f64(drift / p_sum)));
    return infinite ? INFINITY : kl > 0 ? kl : 0;
}

/* The share of P below which Q is summed anew: of log1p(Q/P - 1) as many digits are lost as the
 * quotient is below 1, and a KL beyond the gap, 1.8 there, can spare those of a sixteenth. */
#define SCANT 0x1p-4
/* The sum below which subnormal probabilities, which count as 0, may be a part of it; and the one
 * beyond which a quotient q/p may be subnormal. */
#define FAINT (KLCE_REAL_IS_F64 ? 0x1p-900 : 0x1p-60)
#define VAST (KLCE_REAL_IS_F64 ? 0x1p100 : 0x1p32)

/* What a tile's states make, and of normalised rows log1p's gaps; whether any of those may have to
 * be summed anew. */
KLCE_INLINE int K(kl_probs_results)(int normalize, ptrdiff_t count, const double *state,
                                    double *result, double *gaps)
{
    int any_rare = 0;
    EACH_STATE(i, count)
    {
        v_f64 kl = K(state)(state, K(KL_TERMS), i), mass = K(state)(state, K(KL_MASS), i);
        if (normalize) {
            v_f64 zero = set_f64(0), inverse = set_f64(1) / mass;
            v_f64 gain = K(state)(state, K(KL_GAIN), i), gap = log1p_gap_f64(gain * inverse);
            m_f64 of_size = and_f64(le_f64(set_f64(FAINT), mass), le_f64(mass, set_f64(VAST)));
            /* Rounding may leave less than nothing. */
            kl = max_f64(zero, kl * inverse - gap) + (gain - gain);
            /* All that finish may have to sum anew, and a little more, so that what becomes of a
             * row does not depend on rounding here. */
            m_f64 plain = or_f64(le_f64(gap, set_f64(1e-12)), le_f64(gap + gap, kl));
            plain = and_f64(plain, lt_f64(set_f64(1.01 * SCANT - 1) * mass, gain));
            any_rare |= any_f64(not_f64(and_f64(plain, of_size)));
            store_f64(gaps + i, gap);
            /* Either side sums to 0: no distribution. */
            m_f64 empty = or_f64(eq_f64(mass, zero), eq_f64(gain, -mass));
            kl = select_f64(empty, set_f64(NAN), kl);
        }
        store_f64(result + i, kl);
    }
    return any_rare;
}

static void K(kl_probs_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    int normalize = K(kl_normalizes)(call);
    double result[KLCE_TILE], gaps[KLCE_TILE];
    int any_rare = K(kl_probs_results)(normalize, count, state, result, gaps);
    for (ptrdiff_t i = 0; any_rare && i < count; i++) {
        double p_sum = state[FIELD(KL_MASS) + i], q_sum = p_sum + state[FIELD(KL_GAIN) + i];
        int known = p_sum > 0 && p_sum < INFINITY && q_sum < INFINITY;
        int differ =
            p_sum < FAINT || p_sum > VAST || (!(gaps[i] <= 1e-12) && !(2 * gaps[i] <= result[i]));
        int scant = q_sum <= p_sum * SCANT;
        if (!known || !(differ || scant))
            continue;
        elem p_room[FEW], q_room[FEW];
        const elem *p = K(gathered)(call, 0, row + i, p_room);
        const elem *q = K(gathered)(call, 1, row + i, q_room);
        if (scant) { /* beside p such a q has lost digits in q - p */
            q_sum = 0;
            for (ptrdiff_t k = 0; k < call->n; k++)
                q_sum += K(value)(q[k]);
            differ = q_sum > 0;
        }
        if (differ)
            result[i] = K(kl_probs_rescaled)(p, q, call->n, p_sum, q_sum);
    }
    K(put)(call, 3, row, count, result);
}

static void K(kl_probs_few)(const klce_call *call, ptrdiff_t row)
{
    int normalize = K(kl_normalizes)(call);
    const ptrdiff_t n = call->n;
    double state[KLCE_FIELDS * KLCE_TILE];
    if (n < 1) /* never: for a compiler that would fear sums of nothing below */
        return;
    K(v) p[FEW], q[FEW], terms[TERM_LANES], raised[TERM_LANES];
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(load_columns)(call, 0, row + i, p);
        K(load_columns)(call, 1, row + i, q);
        K(v) least = K(min_of_columns)(p, n, K(set)(SMALL));
        least = K(min_of_columns)(q, n, least);
        K(special) special = K(special_of)(least, p, q, n);
        K(four_sums) term_sum = {0}, raised_sum = {0}, mass = {0}, gain = {0};
        for (ptrdiff_t start = 0, end; start < n; start = end) {
            end = KLCE_LESSER(start + TERM_FLUSH, n);
            const ptrdiff_t lanes = KLCE_LESSER(TERM_LANES, end - start);
            for (ptrdiff_t j = start; j < end; j += TERM_LANES)
                for (ptrdiff_t l = 0; l < KLCE_LESSER(TERM_LANES, end - j); l++) {
                    K(v) own = p[j + l], other = q[j + l];
                    K(term)
                    term = special == K(NOTHING)
                               ? K(kl_probs_term)(own, other, K(NOTHING), normalize)
                           : special == K(ZEROS)
                               ? K(kl_probs_term)(own, other, K(ZEROS), normalize)
                               : K(kl_probs_term)(own, other, K(SMALL_ONES), normalize);
                    int more = j > start;
                    terms[l] = more ? terms[l] + term.plain : term.plain;
                    if (special == K(SMALL_ONES))
                        raised[l] = more ? raised[l] + term.raised : term.raised;
                    /* The first columns, read by then, are sums: of p, and of q - p. */
                    p[l] = more ? p[l] + own : own;
                    q[l] = more ? q[l] + (other - own) : other - own;
                }
            K(add_columns)(&term_sum, terms, NULL, lanes);
            K(add_columns)(&mass, p, NULL, lanes);
            K(add_columns)(&gain, q, NULL, lanes);
            if (special == K(SMALL_ONES))
                K(add_columns)(&raised_sum, raised, NULL, lanes);
        }
        K(total_of_four)(&term_sum, state + FIELD(KL_TERMS) + i);
        K(total_of_four)(&mass, state + FIELD(KL_MASS) + i);
        K(total_of_four)(&gain, state + FIELD(KL_GAIN) + i);
        if (special == K(SMALL_ONES))
            K(add_raised)(&raised_sum, state + FIELD(KL_TERMS) + i);
    }
    K(kl_probs_finish)(call, row, KLCE_TILE, state);
}

/* What rows that lie side by side sum to. */
typedef struct {
    K(abreast_sums) terms, mass, gain;
} K(kl_abreast);

/* Adds some vectors of a class. */
KLCE_INLINE void K(kl_add_abreast)(K(kl_abreast) *sums, int lane, int first, const K(v) *p,
                                   const K(v) *q, K(special) special, int normalize)
{
    K(v) *terms = sums->terms.part[lane] + first;
    K(v) *mass = sums->mass.part[lane] + first, *gain = sums->gain.part[lane] + first;
    EACH_IN_STEP(w)
    {
        terms[w] = terms[w] + K(kl_probs_term)(p[w], q[w], special, normalize).plain;
        if (normalize) {
            mass[w] = mass[w] + p[w];
            gain[w] = gain[w] + (q[w] - p[w]);
        }
    }
}

/* Out of the way of the others, whose constants fill the registers. */
static KLCE_NOINLINE void K(kl_add_zeros_abreast)(K(kl_abreast) *sums, int lane, int first,
                                                  const K(v) *p, const K(v) *q, int normalize)
{
    if (normalize)
        K(kl_add_abreast)(sums, lane, first, p, q, K(ZEROS), 1);
    else
        K(kl_add_abreast)(sums, lane, first, p, q, K(ZEROS), 0);
}

/* The sweep of such rows, 69 instructions a pair of vectors in float32, all told; 0 where one holds
 * a small probability. */
KLCE_INLINE int K(kl_sum_abreast)(const klce_call *call, ptrdiff_t row, K(kl_abreast) *sums,
                                  int normalize)
{
    for (ptrdiff_t j = 0; j < call->n; j++) {
        const elem *p = K(class_of)(call, 0, row, j), *q = K(class_of)(call, 1, row, j);
        const int lane = (int)(j % LANES);
        K(prefetch_class)(call, 0, row, j);
        K(prefetch_class)(call, 1, row, j);
        for (int first = 0; first < K(ABREAST_VECTORS); first += K(ABREAST_STEP)) {
            K(v) own[K(ABREAST_STEP)], other[K(ABREAST_STEP)], least = K(set)(SMALL);
            EACH_IN_STEP(w)
            {
                own[w] = K(load)(p + (first + w) * WIDTH);
                other[w] = K(load)(q + (first + w) * WIDTH);
                least = K(min)(K(min)(own[w], other[w]), least);
            }
            K(special) special = K(special_of)(least, own, other, K(ABREAST_STEP));
            if (special == K(SMALL_ONES))
                return 0;
            if (special == K(NOTHING))
                K(kl_add_abreast)(sums, lane, first, own, other, K(NOTHING), normalize);
            else
                K(kl_add_zeros_abreast)(sums, lane, first, own, other, normalize);
        }
        if (K(is_flushed)(j, call->n)) {
            K(flush_abreast)(&sums->terms);
            K(flush_abreast)(&sums->mass);
            K(flush_abreast)(&sums->gain);
        }
    }
    return 1;
}

static int K(kl_probs_block)(const klce_call *call, ptrdiff_t row)
{
    int normalize = K(kl_normalizes)(call);
    double result[KLCE_ABREAST], gaps[KLCE_TILE];
    K(kl_abreast) sums;
    K(abreast_states) states;
    memset(&sums, 0, sizeof sums);
    if (!(normalize ? K(kl_sum_abreast)(call, row, &sums, 1)
                    : K(kl_sum_abreast)(call, row, &sums, 0)))
        return 0;
    K(total_abreast)(&sums.terms, &states, K(KL_TERMS));
    K(total_abreast)(&sums.mass, &states, K(KL_MASS));
    K(total_abreast)(&sums.gain, &states, K(KL_GAIN));
    for (int i = 0; i < KLCE_ABREAST; i += KLCE_TILE)
        if (K(kl_probs_results)(normalize, KLCE_TILE, states.tile[i / KLCE_TILE], result + i, gaps))
            return 0;
    for (int i = 0; i < KLCE_ABREAST; i += KLCE_TILE)
        K(put)(call, 3, row + i, KLCE_TILE, result + i);
    return 1;
}

ABREAST_OF(kl_probs)

static const klce_kernel K(kl_probs_kernel) = {
    .pass = {{K(kl_probs_sweep), SHARED(kl_probs_merge), K(kl_probs_finish)}},
    .few = TILE_OF(kl_probs_few),
    .abreast = K(kl_probs_abreast),
    .most_abreast = KLCE_SEGMENT,
};

#undef TERM_LANES
#undef TERM_FLUSH
#undef SCANT
#undef FAINT
#undef VAST
#undef SUBNORMAL_LIFT
#undef SMALL_P
#undef SUBNORMAL_UNIT
