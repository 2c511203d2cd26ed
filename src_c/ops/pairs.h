/* Pairs of distributions of any forms: what kl_pairs.h and js_pairs.h share.
 *
 * The first sweep takes each side's normaliser.  The second, over the rows in cache, brings each
 * class to its probability and sums the divergence's terms of those, so that one kernel serves all
 * forms.
 *
 * A divergence of 1e-12 comes of differences q - p of 1e-6 of p, so the probabilities must be good
 * to that much beyond the bound.  Those of float32 (1e-6) are float64.  Those of float64 (1e-13)
 * are twofold, which leaves the difference 1e-19 or better.  The normalisers, as good as the dtype,
 * need no such care: their errors are common to all classes, and enter by a factor of the result
 * and by half the square of their difference.  That is what the drift, the sum of q - p, tells;
 * finish takes it out.
 */

/* The fields of a side, p's and then q's, after the first sweep: of probabilities the sum; of
 * logits those of expsum.h.  Then finish makes of them, before TERMS and DRIFT of logit_pairs.h: */
enum {
    K(SIDE_SUM) = 0,   /* (before) */
    K(SIDE_SCALE) = 0, /* probabilities: what they are multiplied by */
    K(SIDE_SHIFT) = 0, /* logits: what is subtracted first, without error, */
    K(SIDE_LOG) = 1    /* and after, over T; probabilities: the scale's logarithm */
};
_Static_assert(FIELD(OTHER) + FIELD(SIDE_LOG) < FIELD(TERMS), "the sums stand behind both sides");

/* The operands' forms, known to the compiler. */
typedef struct {
    int p, q; /* 0: probabilities, 1: logits */
} K(forms);

static void K(pairs_prepare)(klce_call *call)
{
    klce_call other;
    _Static_assert(sizeof(K(expsum_context)) <= KLCE_CONTEXT * sizeof(double), "two contexts fit");
    K(expsum_prepare)(&other, *(const double *)call->arg[4]);
    K(expsum_prepare)(call, *(const double *)call->arg[3]);
    memcpy(call->context + KLCE_CONTEXT, other.context, sizeof(K(expsum_context)));
}

KLCE_INLINE const K(expsum_context) *K(side_context)(const klce_call *call, int side)
{
    return (const K(expsum_context) *)(call->context + side * KLCE_CONTEXT);
}

KLCE_INLINE int K(pair_normalizes)(const klce_call *call)
{
    return *(const int64_t *)call->arg[2] != 0;
}

KLCE_INLINE double K(plain_sum)(const elem *x, ptrdiff_t n)
{
    K(lanes) lanes = K(no_lanes)();
    K(v) group[VECTORS], sum[VECTORS];
    for (ptrdiff_t i = 0; i < n; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, n);
        EACH_VECTOR(v) sum[v] = K(set)(0);
        for (ptrdiff_t j = i; j < end; j += LANES) {
            if (n >= 2 * BLOCK) /* of shorter rows the sweep before has asked, see sums.h */
                K(prefetch_group)(x + j);
            K(load_group)(x + j, end - j, 0, group);
            EACH_VECTOR(v) sum[v] = sum[v] + group[v];
        }
        K(add_lanes)(&lanes, sum);
    }
    return K(total)(&lanes);
}

KLCE_INLINE void K(side_sweep)(const klce_call *call, int side, int form, ptrdiff_t row,
                               ptrdiff_t low, ptrdiff_t high, double *state)
{
    const elem *x = K(row_in)(call, side, row) + low;
    if (form)
        K(sum_exp)(K(side_context)(call, side), x, high - low, state);
    else
        state[FIELD(SIDE_SUM)] = K(plain_sum)(x, high - low);
}

KLCE_INLINE void K(side_merge)(const klce_call *call, int side, int form, double *into,
                               const double *from)
{
    if (!form) {
        into[FIELD(SIDE_SUM)] += from[FIELD(SIDE_SUM)];
        return;
    }
    klce_call own = *call;
    memcpy(own.context, K(side_context)(call, side), sizeof(K(expsum_context)));
    K(expsum_merge)(&own, into, from);
}

/* Of probabilities, whose sum is there. */
KLCE_INLINE v_f64 K(side_scale)(const klce_call *call, const double *state, int i)
{
    v_f64 sum = K(state)(state, K(SIDE_SUM), i), one = set_f64(1);
    return K(pair_normalizes)(call) ? one / sum + (sum - sum) : one;
}

/* Nan where the row is no distribution: a sum of 0 times a share of 0, or an infinite maximum. */
KLCE_INLINE void K(side_finish)(const klce_call *call, int side, int form, ptrdiff_t count,
                                double *state)
{
    const K(expsum_context) *c = K(side_context)(call, side);
    EACH_STATE(i, count)
    {
        if (form) {
            v_f64 max = K(state)(state, K(MAX), i), log = log1p_f64(K(rest_of)(c, state, i));
            int plain = !K(pair_normalizes)(call);
            /* An infinite log-probability is no probability. */
            v_f64 none = select_f64(eq_f64(max, set_f64(-INFINITY)), set_f64(0), max - max);
            store_f64(state + FIELD(SIDE_SHIFT) + i, plain ? none : max + (max - max));
            store_f64(state + FIELD(SIDE_LOG) + i, plain ? log * set_f64(0) : log);
        } else {
            v_f64 scale = K(side_scale)(call, state, i);
            store_f64(state + FIELD(SIDE_SCALE) + i, scale);
            store_f64(state + FIELD(SIDE_LOG) + i, log_f64(scale));
        }
    }
}

KLCE_INLINE void K(pair_normalizers)(const klce_call *call, K(forms) form, ptrdiff_t row,
                                     ptrdiff_t low, ptrdiff_t high, double *state)
{
    K(side_sweep)(call, 0, form.p, row, low, high, state);
    K(side_sweep)(call, 1, form.q, row, low, high, state + FIELD(OTHER));
}

KLCE_INLINE void K(pair_merge)(const klce_call *call, K(forms) form, double *into,
                               const double *from)
{
    K(side_merge)(call, 0, form.p, into, from);
    K(side_merge)(call, 1, form.q, into + FIELD(OTHER), from + FIELD(OTHER));
}

KLCE_INLINE void K(pair_sides)(const klce_call *call, K(forms) form, ptrdiff_t count, double *state)
{
    K(side_finish)(call, 0, form.p, count, state);
    K(side_finish)(call, 1, form.q, count, state + FIELD(OTHER));
}

/* A class's probability.  Its logarithm is `log`; of one that came as a probability, `log` and that
 * of `from`, which does not underflow. */
typedef struct {
    twofold p;
    v_f64 log, from;
} K(share);

KLCE_INLINE v_f64 K(log_of_share)(const K(share) *share, int form)
{
    return form ? share->log : share->log + log_f64(share->from);
}

/* What a row's side is measured by. */
typedef struct {
    v_f64 first, log;           /* SIDE_SCALE or SIDE_SHIFT, SIDE_LOG */
    v_f64 inverse, inverse_low; /* 1/T */
    const exp_constants_f64 *e;
    double t;
} K(side);

KLCE_INLINE K(side) K(side_of)(const klce_call *call, int side, const double *state)
{
    const K(expsum_context) *c = K(side_context)(call, side);
    double inverse = 1 / c->t;
    return (K(side)){set_f64(state[0]),
                     set_f64(state[FIELD(SIDE_LOG)]),
                     set_f64(inverse),
                     set_f64(fma(-inverse, c->t, 1) * inverse),
                     &c->f,
                     c->t};
}

KLCE_INLINE K(share) K(share_of)(const K(side) *by, int form, v_f64 x)
{
    v_f64 zero = set_f64(0);
    if (!form) {
        twofold p = {select_f64(lt_f64(x, zero), set_f64(NAN), x * by->first), zero};
#if KLCE_REAL_IS_F64
        p.low = two_product(x, by->first).low;
#endif
        return (K(share)){p, by->log, x};
    }
#if KLCE_REAL_IS_F64
    twofold z = two_sum(x, -by->first), less = two_product(by->log, set_f64(by->t));
    twofold d = two_sum(z.high, -less.high);
    twofold w = two_product(d.high, by->inverse);
    w.low = w.low + (d.high * by->inverse_low + (d.low + z.low - less.low) * by->inverse);
    m_f64 finite = lt_f64(max_f64(w.high, -w.high), set_f64(INFINITY));
    w.low = select_f64(finite, w.low, zero);
    return (K(share)){twofold_exp(w), w.high, zero};
#else
    v_f64 d = (x - by->first) - by->log * set_f64(by->t);
    return (K(share)){{exp_f64(by->e, d, by->t), zero}, d * by->inverse, zero};
#endif
}

/* The term of a class; q - p comes with it. */
typedef v_f64 (*K(pair_term))(const K(share) *p, const K(share) *q, v_f64 d, K(forms) form,
                              int normalize);

KLCE_INLINE void K(pair_sweep)(const klce_call *call, K(forms) form, K(pair_term) term_of,
                               ptrdiff_t row, ptrdiff_t low, ptrdiff_t high, double *state)
{
    const elem *p = K(row_in)(call, 0, row), *q = K(row_in)(call, 1, row);
    K(side) p_by = K(side_of)(call, 0, state), q_by = K(side_of)(call, 1, state + FIELD(OTHER));
    int normalize = K(pair_normalizes)(call);
    K(lanes) terms = K(no_lanes)(), drift = K(no_lanes)();
    K(v) group[VECTORS];
    v_f64 p_wide[DOUBLES], q_wide[DOUBLES], term_sum[DOUBLES], drift_sum[DOUBLES];
    real none = (real)-INFINITY;
    for (ptrdiff_t i = low; i < high; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, high);
        for (int v = 0; v < DOUBLES; v++)
            term_sum[v] = drift_sum[v] = set_f64(0);
        for (ptrdiff_t j = i; j < end; j += LANES) {
            K(load_group)(p + j, end - j, form.p ? none : 0, group);
            K(widen_group)(group, p_wide);
            K(load_group)(q + j, end - j, form.q ? none : 0, group);
            K(widen_group)(group, q_wide);
            for (int v = 0; v < DOUBLES; v++) {
                K(share) a = K(share_of)(&p_by, form.p, p_wide[v]);
                K(share) b = K(share_of)(&q_by, form.q, q_wide[v]);
                v_f64 d = (b.p.high - a.p.high) + (b.p.low - a.p.low);
                term_sum[v] = term_sum[v] + term_of(&a, &b, d, form, normalize);
                drift_sum[v] = drift_sum[v] + d;
            }
        }
        K(add_wide)(&terms, term_sum);
        K(add_wide)(&drift, drift_sum);
    }
    state[FIELD(TERMS)] = K(total)(&terms);
    state[FIELD(DRIFT)] = K(total)(&drift);
}

/* The first sweep of a tile of rows of few classes. */
KLCE_INLINE void K(side_few)(const klce_call *call, int side, int form, ptrdiff_t row,
                             double *state)
{
    K(tile) tile;
    if (form) {
        klce_call own = *call;
        memcpy(own.context, K(side_context)(call, side), sizeof(K(expsum_context)));
        K(sum_exp_few)(&own, side, row, &tile, state);
        return;
    }
    K(sum_few)(call, side, row, &tile, state + FIELD(SIDE_SUM));
}

/* The sides of rows that lie side by side, from row i of a tile. */
KLCE_INLINE K(side) K(sides_of)(const klce_call *call, int side, const double *state, int i)
{
    K(side) by = K(side_of)(call, side, state);
    by.first = K(state)(state, K(SIDE_SCALE), i);
    by.log = K(state)(state, K(SIDE_LOG), i);
    return by;
}

/* The second sweep, as many rows at a time as a vector has doubles. */
KLCE_INLINE void K(pair_few)(const klce_call *call, K(forms) form, K(pair_term) term_of,
                             ptrdiff_t row, double *state)
{
    int normalize = K(pair_normalizes)(call);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(v) p[FEW], q[FEW];
        K(load_columns)(call, 0, row + i, p);
        K(load_columns)(call, 1, row + i, q);
        for (int h = 0; h < HALVES; h++) {
            int at = i + h * KLCE_WIDTH_f64;
            K(side) p_by = K(sides_of)(call, 0, state, at);
            K(side) q_by = K(sides_of)(call, 1, state + FIELD(OTHER), at);
            v_f64 terms[LANES], drift[LANES];
            EACH_GROUP(group, call->n) EACH_LANE(l, group, call->n)
            {
                v_f64 x = K(doubles)(p[group + l], h), y = K(doubles)(q[group + l], h);
                K(share) a = K(share_of)(&p_by, form.p, x), b = K(share_of)(&q_by, form.q, y);
                v_f64 d = (b.p.high - a.p.high) + (b.p.low - a.p.low);
                v_f64 term = term_of(&a, &b, d, form, normalize);
                terms[l] = group ? terms[l] + term : term;
                drift[l] = group ? drift[l] + d : d;
            }
            K(sum_double_columns)(terms, call->n, state + FIELD(TERMS) + at);
            K(sum_double_columns)(drift, call->n, state + FIELD(DRIFT) + at);
        }
    }
}

/* The sum of the terms; nan where a side of no classes is no distribution. */
KLCE_INLINE v_f64 K(pair_total)(const double *state, int i)
{
    v_f64 p = K(state)(state, 0, i), q = K(state)(state + FIELD(OTHER), 0, i);
    return K(state)(state, K(TERMS), i) + (p - p) + (q - q);
}

/* For a pair of forms, by its term and its finish: the passes NAME_..., the tile of rows of few
 * classes, and the kernel of both. */
#define PAIR_PASSES(name, form_p, form_q, term_of)                                                 \
    static void K(name##_normalizers)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,         \
                                      ptrdiff_t high, double *state)                               \
    {                                                                                              \
        K(pair_normalizers)(call, (K(forms)){form_p, form_q}, row, low, high, state);              \
    }                                                                                              \
    static void K(name##_merge)(const klce_call *call, double *into, const double *from)           \
    {                                                                                              \
        K(pair_merge)(call, (K(forms)){form_p, form_q}, into, from);                               \
    }                                                                                              \
    static void K(name##_sides)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,             \
                                double *state)                                                     \
    {                                                                                              \
        (void)row;                                                                                 \
        K(pair_sides)(call, (K(forms)){form_p, form_q}, count, state);                             \
    }                                                                                              \
    static void K(name##_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,               \
                                ptrdiff_t high, double *state)                                     \
    {                                                                                              \
        K(pair_sweep)(call, (K(forms)){form_p, form_q}, K(term_of), row, low, high, state);        \
    }
#define PAIR_FEW(name, form_p, form_q, term_of, finish)                                            \
    static void K(name##_few)(const klce_call *call, ptrdiff_t row)                                \
    {                                                                                              \
        const K(forms) form = {form_p, form_q};                                                    \
        double state[KLCE_FIELDS * KLCE_TILE];                                                     \
        K(side_few)(call, 0, form_p, row, state);                                                  \
        K(side_few)(call, 1, form_q, row, state + FIELD(OTHER));                                   \
        K(pair_sides)(call, form, KLCE_TILE, state);                                               \
        K(pair_few)(call, form, K(term_of), row, state);                                           \
        K(finish)(call, row, KLCE_TILE, state);                                                    \
    }
#define PAIR_TABLE(name, second_sweep, tile, finish)                                               \
    static const klce_kernel K(name##_kernel) = {                                                  \
        .prepare = K(pairs_prepare),                                                               \
        .pass = {{K(name##_normalizers), SHARED(name##_merge), SHARED(name##_sides)},              \
                 {K(second_sweep), SHARED(divergence_add), SHARED(finish)}},                       \
        .few = TILE_OF(tile),                                                                      \
    };
#define PAIR_KERNEL(name, form_p, form_q, term_of, finish)                                         \
    PAIR_PASSES(name, form_p, form_q, term_of)                                                     \
    PAIR_FEW(name, form_p, form_q, term_of, finish)                                                \
    PAIR_TABLE(name, name##_sweep, name##_few, finish)
