/* compare: what is asked for of two rows of logits, x (of p) and y (of q), from one read of both.
 * Operands: logits of p and q, target, ignore_index, temperature, want, top_k > numbers, integers.
 *
 * The first sweep takes both rows' sums and their maxima, and both KL of rows that are near, where
 * nothing is asked for that takes another sweep (near_logits.h), or unlike (kl_logits.h); a second,
 * over the rows in cache, takes what else is asked for of unlike rows (unlike_logits.h).  What is
 * not had by then, the third adds up by each class's terms (pair_terms.h).  A cross-entropy is a
 * divergence and an entropy: two sums that are not negative.  The drift, what rounding left of the
 * sum of q - p, is taken out of the divergences at the end, and of the offset.
 *
 * The total variation feels the drift to first order.  Where that shows, as in rows that are near,
 * a fourth sweep does what the third did, from the offset that is right. */

/* Fields, some of which take the places of others that are no longer read then:
 *             from the first sweep                 once rows are related, and later
 *     0-3     MAX, REST, ORIGIN, REF of x          the same
 *     4-5     WEIGHTED, APART of x                 OFFSET, OFFSET_LOW (logit_pairs.h)
 *     6-8     MAX, REST, ORIGIN of y               RATIO, Q_ORIGIN, Q_REF
 *     9-11    REF, WEIGHTED, APART of y            MAX_Q, LOG_Q, KNOWN_REVERSE_KL
 *     12-13   BEST_P, BEST_Q                       the same
 *     14-15   -                                    ENTROPY_P, ENTROPY_Q
 *     16-21   -                                    KL to COMPARE_DRIFT
 *     22-24   NEAR_TERMS, NEAR_DRIFT, NEAR_GUESS   KNOWN_KL, AGAIN, UNLIKE (unlike.h)
 *     25      NEAR_REVERSE                         - */
enum {
    K(COMPARE_Q) = K(APART) + 1,
    K(BEST_P) = K(COMPARE_Q) + K(APART) + 1, /* as in score.h: where its segment begins, then it */
    K(BEST_Q),
    K(ENTROPY_P),
    K(ENTROPY_Q),
    K(KL),
    K(REVERSE_KL),
    K(JS),
    K(VARIATION),
    K(AGREEMENT),
    K(COMPARE_DRIFT),
    K(MAX_Q) = K(COMPARE_Q) + K(REF),      /* y's maximum, */
    K(LOG_Q) = K(COMPARE_Q) + K(WEIGHTED), /* and log1p of the sum of its others */
    K(KNOWN_REVERSE_KL) = K(COMPARE_Q) + K(APART),
    K(KNOWN_KL) = K(NEAR_TERMS),
    K(AGAIN) = K(NEAR_DRIFT) /* whether there is a fourth sweep */
};
_Static_assert(FIELD(COMPARE_DRIFT) < FIELD(NEAR_TERMS), "what near_logits.h leaves stays");
_Static_assert(FIELD(Q_REF) < FIELD(MAX_Q), "and behind what relates them");

enum {
    K(COMPARE_TARGET) = 2,
    K(COMPARE_IGNORED),
    K(COMPARE_TEMPERATURE),
    K(COMPARE_WANT),
    K(COMPARE_TOP),
    K(COMPARE_NUMBERS),
    K(COMPARE_INTEGERS)
};

/* Of the total variation, what the drift may be without a fourth sweep. */
#define DRIFT_SHOWN (KLCE_REAL_IS_F64 ? 0x1p-45 : 0x1p-22)

/* Whether KL(q||p) is asked for. */
KLCE_INLINE int K(needs_reverse_kl)(int64_t want)
{
    return WANTS(want, compare_reverse_kl_divergence) || WANTS(want, compare_reverse_cross_entropy);
}

/* Whether what no first sweep has is. */
KLCE_INLINE int K(needs_more_than_kl)(int64_t want)
{
    return WANTS(want, compare_js_divergence) || WANTS(want, compare_total_variation) ||
           WANTS(want, compare_expected_agreement);
}

/* Whether KL(p||q) is asked for, or the drift, which comes with it. */
KLCE_INLINE int K(needs_kl)(int64_t want)
{
    return WANTS(want, compare_target_log_prob_change) || WANTS(want, compare_target_prob_change) ||
           WANTS(want, compare_kl_divergence) || WANTS(want, compare_cross_entropy);
}

/* Whether numbers that each row has for itself are asked for, but the entropies. */
KLCE_INLINE int K(needs_own)(int64_t want)
{
    return WANTS(want, compare_nll_p) || WANTS(want, compare_nll_q) ||
           WANTS(want, compare_max_log_prob_p) || WANTS(want, compare_max_log_prob_q);
}

/* Whether what labels decide is. */
KLCE_INLINE int K(needs_labels)(int64_t want) { return (want & KLCE_COMPARE_OF_TARGET) != 0; }

/* Whether the first maxima, beyond whether they are the same. */
KLCE_INLINE int K(needs_best)(int64_t want)
{
    return WANTS(want, compare_argmax_p) || WANTS(want, compare_argmax_q) ||
           WANTS(want, compare_greedy_match_p) || WANTS(want, compare_greedy_match_q);
}

static void K(compare_normalizers)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                   ptrdiff_t high, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    int64_t want = K(wanted)(call, K(COMPARE_WANT));
    const elem *p = K(row_in)(call, 0, row), *q = K(row_in)(call, 1, row);
    int long_row = call->n > FEW, unlike = long_row && K(seem_unlike)(c, p, q);
    state[FIELD(BEST_P)] = state[FIELD(BEST_Q)] = (double)low;
    state[FIELD(APART)] = state[FIELD(COMPARE_Q) + FIELD(APART)] = NAN;
    if (long_row && !unlike && (K(needs_kl)(want) || K(needs_reverse_kl)(want)) &&
        !K(needs_more_than_kl)(want) &&
        K(sum_exp_and_weighted_near)(c, p + low, q + low, high - low, state, K(COMPARE_Q)))
        return;
    state[FIELD(NEAR_TERMS)] = NAN;
    /* First q: the sweep of p, as a rule of both, finds it in cache. */
    for (int side = 1; side >= 0; side--) {
        const elem *x = (side ? q : p) + low, *y = (side ? p : q) + low;
        double *own = state + side * FIELD(COMPARE_Q);
        int apart = unlike && (side ? K(needs_reverse_kl)(want) : K(needs_kl)(want));
        int weighs =
            side ? WANTS(want, compare_entropy_q) || WANTS(want, compare_reverse_cross_entropy)
                 : WANTS(want, compare_entropy_p) || WANTS(want, compare_cross_entropy);
        if (apart) {
            K(sum_exp_weighted_and_apart)(c, x, y, high - low, own);
        } else if (weighs) {
            K(sum_exp_and_weighted)(c, x, high - low, own);
        } else {
            K(sum_exp)(c, x, high - low, own);
            own[FIELD(WEIGHTED)] = 0;
        }
    }
}

static void K(compare_merge)(const klce_call *call, double *into, const double *from)
{
    const K(expsum_context) *c = K(context)(call);
    double *into_q = into + FIELD(COMPARE_Q);
    const double *from_q = from + FIELD(COMPARE_Q);
    K(near_join)(c, into, from);
    K(argmax_join)(into, from, K(BEST_P));
    K(argmax_join)(into_q, from_q, K(BEST_Q) - K(COMPARE_Q));
    K(apart_join)(c, into, from, 1);
    K(apart_join)(c, into_q, from_q, 1);
}

/* The entropies, what logit_pairs.h relates the rows by, and both KL where the first sweep has them
 * (KNOWN_KL, KNOWN_REVERSE_KL; else nan). */
static KLCE_NOINLINE void K(compare_relate)(const K(expsum_context) *c, ptrdiff_t count,
                                            double *state)
{
    const double *other = state + FIELD(COMPARE_Q);
    EACH_STATE(i, count)
    {
        store_f64(state + FIELD(ENTROPY_P) + i, K(entropy_of)(c, state, i));
        store_f64(state + FIELD(ENTROPY_Q) + i, K(entropy_of)(c, other, i));
        v_f64 near = K(near_kl)(c, state, i), drift = K(near_drift)(c, state, i);
        v_f64 near_reverse = K(near_reverse_kl)(c, state, i);
        v_f64 mean = K(mean_apart)(c, state, i), reverse = K(mean_apart)(c, other, i);
        m_f64 is_near = eq_f64(near, near);
        K(relate_logits)(c, state, other, i);
        v_f64 offset_high = K(state)(state, K(OFFSET), i);
        v_f64 offset_low = K(state)(state, K(OFFSET_LOW), i);
        v_f64 plain = K(plain_kl)(c, mean, offset_high, offset_low);
        store_f64(state + FIELD(KNOWN_KL) + i, select_f64(is_near, near, plain));
        reverse = K(plain_kl)(c, reverse, -offset_high, -offset_low);
        store_f64(state + FIELD(KNOWN_REVERSE_KL) + i, select_f64(is_near, near_reverse, reverse));
        /* The guess and the drift hold more digits than the rows' sums. */
        twofold offset =
            two_sum(K(state)(state, K(NEAR_GUESS), i), set_f64(c->t) * log1p_f64(drift));
        store_f64(state + FIELD(OFFSET) + i, select_f64(is_near, offset.high, offset_high));
        store_f64(state + FIELD(OFFSET_LOW) + i, select_f64(is_near, offset.low, offset_low));
        /* And the ratio is that of the offset. */
        v_f64 again = exp_f64(&c->f, (offset_high - offset.high) + (offset_low - offset.low), c->t);
        v_f64 ratio = K(state)(state, K(RATIO), i);
        store_f64(state + FIELD(RATIO) + i, select_f64(is_near, ratio * again, ratio));
    }
}

/* And what y's own numbers come from, of which that leaves nothing. */
static void K(compare_relate_own)(const klce_call *call, ptrdiff_t count, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    const double *other = state + FIELD(COMPARE_Q);
    double max_q[KLCE_TILE], log_q[KLCE_TILE];
    int own = K(needs_own)(K(wanted)(call, K(COMPARE_WANT)));
    for (int i = 0; own && i < count; i += KLCE_WIDTH_f64) {
        store_f64(max_q + i, K(state)(other, K(MAX), i));
        store_f64(log_q + i, K(log_of_rest)(c, other, i));
    }
    K(compare_relate)(c, count, state);
    for (ptrdiff_t i = 0; own && i < count; i++) {
        state[FIELD(MAX_Q) + i] = max_q[i];
        state[FIELD(LOG_Q) + i] = log_q[i];
    }
}

/* And the first maxima. */
static void K(compare_offset)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    const double *other = state + FIELD(COMPARE_Q);
    int64_t want = K(wanted)(call, K(COMPARE_WANT));
    if (WANTS(want, compare_same_argmax) || K(needs_best)(want))
        for (ptrdiff_t i = 0; i < count; i++) {
            const elem *x = K(row_in)(call, 0, row + i), *y = K(row_in)(call, 1, row + i);
            ptrdiff_t best_p = K(argmax)(x, call->n, state + i, K(BEST_P));
            ptrdiff_t best_q = K(argmax)(y, call->n, other + i, K(BEST_Q) - K(COMPARE_Q));
            state[FIELD(BEST_P) + i] = (double)best_p;
            state[FIELD(BEST_Q) + i] = (double)best_q;
        }
    K(compare_relate_own)(call, count, state);
    K(find_unlike)(call, row, count, state);
}

/* Of unlike rows; of all, sets to 0 what the next sweep may leave as it is. */
static void K(compare_sweep_unlike)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                    ptrdiff_t high, double *state)
{
    int64_t want = K(wanted)(call, K(COMPARE_WANT));
    const int wanted[K(UNLIKE_SUMS)] = {WANTS(want, compare_js_divergence),
                                        WANTS(want, compare_total_variation),
                                        WANTS(want, compare_expected_agreement)};
    double sums[K(UNLIKE_SUMS)] = {0};
    if (state[FIELD(UNLIKE)] != 0 && K(needs_more_than_kl)(want))
        K(sum_unlike)(call, row, low, high, state, wanted, sums);
    for (int k = K(KL); k <= K(COMPARE_DRIFT); k++)
        state[k * KLCE_TILE] = 0;
    state[FIELD(JS)] = sums[0];
    state[FIELD(VARIATION)] = sums[1];
    state[FIELD(AGREEMENT)] = sums[2];
}

/* Whether a row has all that is wanted by now: then UNLIKE stays, or is set. */
static void K(compare_look)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    int64_t want = K(wanted)(call, K(COMPARE_WANT));
    int js = WANTS(want, compare_js_divergence), more = K(needs_more_than_kl)(want);
    int sized = js || WANTS(want, compare_total_variation); /* the agreement is right as it is */
    double scale[KLCE_TILE], *unlike = state + FIELD(UNLIKE);
    (void)row;
    EACH_STATE(i, count)
    store_f64(scale + i, K(of_probabilities)(K(context)(call), state, i) * set_f64(0.5));
    for (ptrdiff_t i = 0; i < count; i++) {
        double least = js ? UNLIKE_JS : UNLIKE_VARIATION;
        double size = state[(js ? FIELD(JS) : FIELD(VARIATION)) + i] * scale[i];
        int lacks = more && (unlike[i] == 0 || (sized && !(size >= least)));
        lacks |= K(needs_kl)(want) && isnan(state[FIELD(KNOWN_KL) + i]);
        lacks |= K(needs_reverse_kl)(want) && isnan(state[FIELD(KNOWN_REVERSE_KL) + i]);
        unlike[i] = !lacks;
    }
}

_Static_assert((int)K(SUM_DRIFT) == K(COMPARE_DRIFT) - K(KL),
               "sums are in the order of their fields");

/* The sums that the third sweep takes. */
KLCE_INLINE int K(compare_sums)(int64_t want)
{
    return K(KL_SUMS) | K(needs_reverse_kl)(want) << K(SUM_REVERSE_KL) |
           (int)WANTS(want, compare_js_divergence) << K(SUM_JS) |
           (int)WANTS(want, compare_total_variation) << K(SUM_VARIATION) |
           (int)WANTS(want, compare_expected_agreement) << K(SUM_AGREEMENT);
}

/* Of a row; that of the divergence that everybody asks for, alone, is compiled for it. */
static KLCE_NOINLINE void K(sum_terms)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                       ptrdiff_t high, double *state)
{
    double sums[K(PAIR_SUMS)];
    int taken = K(compare_sums)(K(wanted)(call, K(COMPARE_WANT)));
    if (taken == K(KL_SUMS))
        K(sum_pairs)(call, row, low, high, K(KL_SUMS), state, sums);
    else
        K(sum_pairs)(call, row, low, high, taken, state, sums);
    for (int k = 0; k < K(PAIR_SUMS); k++)
        state[(K(KL) + k) * KLCE_TILE] = sums[k];
}

static void K(compare_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                             double *state)
{
    if (state[FIELD(UNLIKE)] == 0)
        K(sum_terms)(call, row, low, high, state);
}

static void K(compare_add_all)(const klce_call *call, double *into, const double *from)
{
    (void)call;
    for (int k = K(KL); k <= K(COMPARE_DRIFT); k++)
        into[k * KLCE_TILE] += from[k * KLCE_TILE];
}

static void K(compare_add)(const klce_call *call, double *into, const double *from)
{
    if (into[FIELD(UNLIKE)] == 0) /* else both hold what the sweep before left */
        K(compare_add_all)(call, into, from);
}

/* Takes the drift out of the offset, and finds the rows whose total variation it shows in. */
static void K(compare_settle)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    int varies = WANTS(K(wanted)(call, K(COMPARE_WANT)), compare_total_variation);
    (void)row;
    EACH_STATE(i, count)
    {
        v_f64 zero = set_f64(0), one = set_f64(1), scale = K(of_probabilities)(c, state, i);
        v_f64 s = K(state)(state, K(COMPARE_DRIFT), i) * scale, size = max_f64(s, -s);
        s = select_f64(lt_f64(size, set_f64(0.5)), s, zero); /* of a row that is one */
        twofold offset = two_sum(K(state)(state, K(OFFSET), i), set_f64(c->t) * log1p_f64(s));
        store_f64(state + FIELD(OFFSET) + i, offset.high);
        store_f64(state + FIELD(OFFSET_LOW) + i, K(state)(state, K(OFFSET_LOW), i) + offset.low);
        store_f64(state + FIELD(RATIO) + i, K(state)(state, K(RATIO), i) / (one + s));
        v_f64 shown = K(state)(state, K(VARIATION), i) * scale * set_f64(DRIFT_SHOWN);
        v_f64 again = select_f64(lt_f64(shown, size), one, zero);
        store_f64(state + FIELD(AGAIN) + i, varies ? again : zero);
    }
}

static void K(compare_sweep_again)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                   ptrdiff_t high, double *state)
{
    if (state[FIELD(AGAIN)] != 0)
        K(sum_terms)(call, row, low, high, state);
}

static void K(compare_add_again)(const klce_call *call, double *into, const double *from)
{
    if (into[FIELD(AGAIN)] != 0) /* likewise */
        K(compare_add_all)(call, into, from);
}

/* How many classes are in the top of both rows. */
static KLCE_NOINLINE double K(overlap)(const klce_call *call, ptrdiff_t row)
{
    K(top) p, q;
    int shared = 0;
    p.size = q.size = K(top_size)(*(const int64_t *)call->arg[K(COMPARE_TOP)]);
    p.filled = q.filled = 0;
    K(top_add)(&p, K(row_in)(call, 0, row), call->n, 0);
    K(top_add)(&q, K(row_in)(call, 1, row), call->n, 0);
    for (ptrdiff_t i = 0; i < p.filled; i++)
        for (ptrdiff_t j = 0; j < q.filled; j++)
            shared += p.index[i] == q.index[j];
    return shared;
}

/* Of up to a tile of rows the labels, what both rows hold there, nan for one that is out of range,
 * and 1 for each that counts. */
typedef struct {
    double label[KLCE_TILE], x[KLCE_TILE], y[KLCE_TILE], counted[KLCE_TILE];
} K(pair_labels);

KLCE_INLINE void K(read_at_pair_labels)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                        K(pair_labels) *read)
{
    int64_t ignored = *(const int64_t *)call->arg[K(COMPARE_IGNORED)];
    for (ptrdiff_t i = 0; i < count; i++) {
        int64_t label = *(const int64_t *)(call->arg[K(COMPARE_TARGET)] +
                                           (row + i) * call->step[K(COMPARE_TARGET)]);
        read->label[i] = (double)label;
        read->counted[i] = label != ignored;
        if (label == ignored)
            continue;
        int inside = (uint64_t)label < (uint64_t)call->n;
        if (!inside)
            K(meet_label)(call, KLCE_BAD_LABEL);
        read->x[i] = inside ? K(value)(K(row_in)(call, 0, row + i)[label]) : (double)NAN;
        read->y[i] = inside ? K(value)(K(row_in)(call, 1, row + i)[label]) : (double)NAN;
    }
}

/* What the target's log-probability and probability change by, from p to q. */
KLCE_INLINE void K(target_changes)(const klce_call *call, ptrdiff_t count, const double *state,
                                   const K(pair_labels) *labels, double *of_log, double *of_prob)
{
    const K(expsum_context) *c = K(context)(call);
    v_f64 one = set_f64(1), inverse = set_f64(1 / c->t), nan = set_f64(NAN);
    v_f64 least = set_f64(-INFINITY), zero = set_f64(0);
    EACH_STATE(i, count)
    {
        v_f64 own = load_f64(labels->x + i), other = load_f64(labels->y + i);
        twofold step = two_sum(other, -own);
        v_f64 offset_low = K(state)(state, K(OFFSET_LOW), i), low = step.low - offset_low;
        low = select_f64(eq_f64(low, low), low, zero); /* nan of infinite ones */
        v_f64 change = (step.high - K(state)(state, K(OFFSET), i)) + low;
        v_f64 mass = one + K(rest_of)(c, state, i);
        v_f64 p = exp_f64(&c->f, own - K(state)(state, K(MAX), i), c->t) / mass;
        /* exp(change) - 1 by its series where that is near. */
        v_f64 size = max_f64(change, -change);
        m_f64 near = lt_f64(size * inverse, set_f64(0.34)), no_p = eq_f64(own, least);
        v_f64 z = select_f64(near, change, zero);
        v_f64 gain = fma_f64(exp_poly_f64(&c->f, z), z, set_f64(c->f.c1)) * z;
        v_f64 far = exp_f64(&c->f, change, c->t) - one;
        v_f64 prob = p * select_f64(near, gain, far);
        /* q, where it is that or nearly so: p times a ratio beyond the numbers is nan. */
        twofold shift = two_sum(K(state)(state, K(MAX), i), K(state)(state, K(OFFSET), i));
        v_f64 none = shift.high - shift.high, rest = shift.low + offset_low; /* of 1e20, all */
        rest = select_f64(eq_f64(rest, rest), rest, zero);
        v_f64 q = exp_f64(&c->f, (other - shift.high) - rest, c->t) / mass;
        prob = select_f64(lt_f64(set_f64(8), change * inverse), q - p, prob);
        prob = min_f64(one, max_f64(-one, prob)); /* nan comes through */
        prob = select_f64(and_f64(no_p, eq_f64(other, least)), none, prob);
        m_f64 counted = eq_f64(load_f64(labels->counted + i), one);
        store_f64(of_log + i, select_f64(counted, change * inverse, nan));
        store_f64(of_prob + i, select_f64(counted, prob, nan));
    }
}

/* The numbers that each row has for itself: as score.h gives them. */
KLCE_INLINE void K(own_numbers)(const klce_call *call, ptrdiff_t count, const double *state,
                                const K(pair_labels) *labels, double (*value)[KLCE_TILE])
{
    const K(expsum_context) *c = K(context)(call);
    v_f64 inverse = set_f64(1 / c->t), zero = set_f64(0);
    EACH_STATE(i, count)
    {
        m_f64 ignored = eq_f64(load_f64(labels->counted + i), zero);
        v_f64 max_p = K(state)(state, K(MAX), i), max_q = K(state)(state, K(MAX_Q), i);
        v_f64 log_p = K(log_of_rest)(c, state, i) + (max_p - max_p); /* inf - inf is nan */
        v_f64 log_q = K(state)(state, K(LOG_Q), i) + (max_q - max_q);
        v_f64 nll_p = (max_p - load_f64(labels->x + i)) * inverse + log_p;
        v_f64 nll_q = (max_q - load_f64(labels->y + i)) * inverse + log_q;
        store_f64(value[KLCE_compare_nll_p] + i, select_f64(ignored, zero, nll_p));
        store_f64(value[KLCE_compare_nll_q] + i, select_f64(ignored, zero, nll_q));
        store_f64(value[KLCE_compare_max_log_prob_p] + i, zero - log_p);
        store_f64(value[KLCE_compare_max_log_prob_q] + i, zero - log_q);
    }
}

/* What is at the target, and what each row has for itself, but for the entropies. */
static KLCE_NOINLINE void K(of_either)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                       const double *state, double (*value)[KLCE_TILE])
{
    int64_t want = K(wanted)(call, K(COMPARE_WANT));
    K(pair_labels) labels = {.counted = {0}};
    if (K(needs_labels)(want))
        K(read_at_pair_labels)(call, row, count, &labels);
    if (WANTS(want, compare_target_log_prob_change) || WANTS(want, compare_target_prob_change))
        K(target_changes)(call, count, state, &labels, value[KLCE_compare_target_log_prob_change],
                          value[KLCE_compare_target_prob_change]);
    if (K(needs_own)(want))
        K(own_numbers)(call, count, state, &labels, value);
    for (ptrdiff_t i = 0; i < count; i++) {
        double best_p = state[FIELD(BEST_P) + i], best_q = state[FIELD(BEST_Q) + i];
        int counts = labels.counted[i] != 0;
        value[KLCE_compare_argmax_p][i] = best_p;
        value[KLCE_compare_argmax_q][i] = best_q;
        value[KLCE_compare_greedy_match_p][i] = counts && best_p == labels.label[i];
        value[KLCE_compare_greedy_match_q][i] = counts && best_q == labels.label[i];
    }
}

/* Writes what is wanted. */
static KLCE_NOINLINE void K(put_comparisons)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                             const double *state, const double *overlaps)
{
    const K(expsum_context) *c = K(context)(call);
    int64_t want = K(wanted)(call, K(COMPARE_WANT));
    double value[KLCE_COMPARE_COUNT][KLCE_TILE];
    v_f64 zero = set_f64(0), one = set_f64(1), log_2 = set_f64(KLCE_LN2_f64);
    EACH_STATE(i, count)
    {
        v_f64 mass = one + K(rest_of)(c, state, i);
        v_f64 at_reference = (one + K(to_maximum)(c, state, i)) / mass;
        v_f64 scale = at_reference * set_f64(PAIR_UNBOOST);
        v_f64 s = K(state)(state, K(COMPARE_DRIFT), i) * scale;
        v_f64 none = K(state)(state, K(OFFSET), i) * zero; /* nan: no distribution */
        v_f64 known = K(state)(state, K(KNOWN_KL), i);
        v_f64 kl = K(state)(state, K(KL), i) * scale - log1p_gap_f64(s);
        kl = select_f64(eq_f64(known, known), known, kl);
        /* sum q log(q/p) over a mass of 1 + s, and p of 1. */
        v_f64 reverse = K(state)(state, K(REVERSE_KL), i) * scale / (one + s);
        reverse = reverse - log1p_gap_f64(-s / (one + s));
        v_f64 known_reverse = K(state)(state, K(KNOWN_REVERSE_KL), i);
        reverse = select_f64(eq_f64(known_reverse, known_reverse), known_reverse, reverse);
        v_f64 js = K(state)(state, K(JS), i) * scale * set_f64(0.5) - s * s * set_f64(0.125);
        v_f64 variation = K(state)(state, K(VARIATION), i) * scale * set_f64(0.5);
        v_f64 agreement = K(state)(state, K(AGREEMENT), i) * scale * at_reference;
        /* Rounding may leave less than nothing, or more than there is. */
        kl = max_f64(zero, kl + none);
        reverse = max_f64(zero, reverse + none);
        js = min_f64(log_2, max_f64(zero, js + none));
        variation = min_f64(one, variation + none);
        v_f64 entropy_p = K(state)(state, K(ENTROPY_P), i);
        v_f64 entropy_q = K(state)(state, K(ENTROPY_Q), i);
        store_f64(value[KLCE_compare_kl_divergence] + i, kl);
        store_f64(value[KLCE_compare_reverse_kl_divergence] + i, reverse);
        store_f64(value[KLCE_compare_js_divergence] + i, js);
        store_f64(value[KLCE_compare_total_variation] + i, variation);
        store_f64(value[KLCE_compare_cross_entropy] + i, entropy_p + kl);
        store_f64(value[KLCE_compare_reverse_cross_entropy] + i, entropy_q + reverse);
        store_f64(value[KLCE_compare_entropy_p] + i, entropy_p);
        store_f64(value[KLCE_compare_entropy_q] + i, entropy_q);
        store_f64(value[KLCE_compare_expected_agreement] + i, agreement + none);
    }
    if (K(needs_labels)(want) || K(needs_own)(want) || K(needs_best)(want))
        K(of_either)(call, row, count, state, value);
    for (int i = 0; i < count; i++) {
        value[KLCE_compare_same_argmax][i] = state[FIELD(BEST_P) + i] == state[FIELD(BEST_Q) + i];
        value[KLCE_compare_top_overlap][i] = overlaps[i];
    }
    K(put_statistics)(call, K(COMPARE_NUMBERS), row, count, want, klce_compare_statistics,
                      KLCE_COMPARE_COUNT, value);
}

static void K(compare_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    double overlaps[KLCE_TILE] = {0};
    if (WANTS(K(wanted)(call, K(COMPARE_WANT)), compare_top_overlap))
        for (ptrdiff_t i = 0; i < count; i++)
            overlaps[i] = K(overlap)(call, row + i);
    K(put_comparisons)(call, row, count, state, overlaps);
}

/* The overlaps of a tile's rows. */
KLCE_INLINE void K(overlap_few)(const klce_call *call, ptrdiff_t row, const K(tile) *x_tile,
                                const K(tile) *y_tile, const double *state, double *overlaps)
{
    ptrdiff_t size = KLCE_LESSER(*(const int64_t *)call->arg[K(COMPARE_TOP)], call->n);
    K(top_lanes) p, q;
    if (size < 1) /* the overlaps are 0 */
        return;
    if (size > TOP_FEW || K(has_nan_few)(state) || K(has_nan_few)(state + FIELD(COMPARE_Q))) {
        for (ptrdiff_t i = 0; i < KLCE_TILE; i++)
            overlaps[i] = K(overlap)(call, row + i);
        return;
    }
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(v) shared = K(set)(0), one = K(set)(1);
        K(top_of_columns)(x_tile->column[i / WIDTH], call->n, size, &p);
        K(top_of_columns)(y_tile->column[i / WIDTH], call->n, size, &q);
        for (ptrdiff_t j = 0; j < size; j++)
            for (ptrdiff_t k = 0; k < size; k++)
                shared = K(select)(K(eq)(p.index[j], q.index[k]), shared + one, shared);
        K(store_field)(overlaps + i, shared);
    }
}

/* The third sweep, or the fourth, of a tile, whose sums it writes in the place of those there. */
static KLCE_NOINLINE void K(sum_terms_few)(const klce_call *call, const K(tile) *x,
                                           const K(tile) *y, double *state)
{
    double *field[K(PAIR_SUMS)];
    int taken = K(compare_sums)(K(wanted)(call, K(COMPARE_WANT)));
    for (int k = 0; k < K(PAIR_SUMS); k++)
        field[k] = state + (K(KL) + k) * KLCE_TILE;
    if (taken == K(KL_SUMS))
        K(sum_pairs_few)(call, x, y, K(KL_SUMS), state, field);
    else
        K(sum_pairs_few)(call, x, y, taken, state, field);
}

static void K(compare_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE] = {0}, *other = state + FIELD(COMPARE_Q);
    double again[KLCE_FIELDS * KLCE_TILE], overlaps[KLCE_TILE] = {0};
    int64_t want = K(wanted)(call, K(COMPARE_WANT));
    K(tile) x, y;
    int any_again = 0;
    /* Whether weighted sums come along changes no bit of the others. */
    K(sum_exp_and_weighted_few)(call, 0, row, &x, state);
    K(sum_exp_and_weighted_few)(call, 1, row, &y, other);
    if (WANTS(want, compare_same_argmax) || K(needs_best)(want)) {
        K(argmax_few)(&x, call->n, state, state + FIELD(BEST_P));
        K(argmax_few)(&y, call->n, other, state + FIELD(BEST_Q));
    }
    for (int i = 0; i < KLCE_TILE; i++) /* no sweep for those */
        state[FIELD(APART) + i] = other[FIELD(APART) + i] = state[FIELD(NEAR_TERMS) + i] = NAN;
    if (WANTS(want, compare_top_overlap))
        K(overlap_few)(call, row, &x, &y, state, overlaps);
    K(compare_relate_own)(call, KLCE_TILE, state);
    if (K(needs_kl)(want) || K(needs_reverse_kl)(want) || K(needs_more_than_kl)(want))
        K(sum_terms_few)(call, &x, &y, state);
    K(compare_settle)(call, row, KLCE_TILE, state);
    for (int i = 0; i < KLCE_TILE; i++)
        any_again |= state[FIELD(AGAIN) + i] != 0;
    if (any_again) {
        memcpy(again, state, sizeof again);
        K(sum_terms_few)(call, &x, &y, again);
        for (int k = K(KL); k <= K(COMPARE_DRIFT); k++)
            for (int i = 0; i < KLCE_TILE; i++)
                if (state[FIELD(AGAIN) + i] != 0)
                    state[k * KLCE_TILE + i] = again[k * KLCE_TILE + i];
    }
    K(put_comparisons)(call, row, KLCE_TILE, state, overlaps);
}

static void K(compare_prepare)(klce_call *call)
{
    K(temperature_prepare)(call);
    call->few_together = 1;
}

static const klce_kernel K(compare_kernel) = {
    .prepare = K(compare_prepare),
    .pass = {{K(compare_normalizers), SHARED(compare_merge), K(compare_offset)},
             {K(compare_sweep_unlike), SHARED(compare_add_all), SHARED(compare_look)},
             {K(compare_sweep), SHARED(compare_add), SHARED(compare_settle)},
             {K(compare_sweep_again), SHARED(compare_add_again), K(compare_finish)}},
    .few = TILE_OF(compare_few),
};

#undef DRIFT_SHOWN
