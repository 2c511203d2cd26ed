/* Pairs of rows of logits that are unlike, x (of p) and y (of q): a second sweep without what small
 * divergences need, for JS, the total variation and the expected agreement.
 *
 * With d = log(q/p), high = max(p, q) and t = exp(-|d|), a class gives
 *     twice the JS    high ((1 + t) log(2/(1 + t)) - |d| t),
 *     |q - p|         high (1 - t),
 *     p q             of both as they are.
 * One exponential is of the larger of both and the other of their distance, so that no class needs
 * another way.  The first two are wrong by some 2^-24 high (2^-53), where those of logit_pairs.h
 * are right to that share of themselves; and as the sum of high is 2 at most, that is enough of a
 * JS of a sixteenth and a total variation of an eighth, which is the least that goes with such a
 * JS, or nearly (Lin, 1991: JS <= TV log 2).  Rows of which there is less are swept once more, as
 * those that do not seem unlike. */

/* Whether a row is swept so; and then, whether that is all. */
enum { K(UNLIKE) = K(NEAR_GUESS) };
_Static_assert(FIELD(PLAIN_KL) < FIELD(UNLIKE), "what relates rows stays");

#define UNLIKE_JS 0x1p-4
#define UNLIKE_VARIATION 0x1p-3

/* The least -|d|/T, whose exponential is nothing beside 1 and its square still a normal number. */
#define UNLIKE_FARTHEST (KLCE_REAL_IS_F64 ? -100 : -40)

/* Whether rows may be that unlike, by their first classes: log(q/p) of a deviation of 0.8, whose KL
 * is a third of a nat and JS a fourteenth, ranges over 3 or more in 64 of them.  A guess: if it is
 * wrong, a sum was for nothing, or a sweep. */
KLCE_INLINE int K(seem_unlike)(const K(expsum_context) *c, const elem *x, const elem *y)
{
    K(v) x_group[VECTORS], y_group[VECTORS];
    K(v) most = K(set)((real)-INFINITY), least = K(set)((real)INFINITY);
    for (int j = 0; j < 64; j += LANES) {
        K(load_group)(x + j, LANES, 0, x_group);
        K(load_group)(y + j, LANES, 0, y_group);
        EACH_VECTOR(v)
        {
            K(v) apart = x_group[v] - y_group[v]; /* nan is passed over */
            most = K(max)(apart, most);
            least = K(min)(apart, least);
        }
    }
    return (double)K(hmax)(most) + (double)K(hmax)(-least) > 3 * c->t;
}

/* Tells which rows are swept so: those that seem unlike, of more than FEW classes, measured from no
 * origin.  Their normalisers are finite. */
KLCE_INLINE void K(find_unlike)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *state)
{
    const K(expsum_context) *c = K(context)(call);
    for (ptrdiff_t i = 0; i < count; i++) {
        int direct = state[FIELD(ORIGIN) + i] == 0 && state[FIELD(Q_ORIGIN) + i] == 0 &&
                     isfinite(state[FIELD(OFFSET) + i]);
        state[FIELD(UNLIKE) + i] =
            direct && call->n > FEW &&
            K(seem_unlike)(c, K(row_in)(call, 0, row + i), K(row_in)(call, 1, row + i));
    }
}

/* high and, if asked for, low = min(p, q), both to the scale of w as logit_pairs.h has it; t and
 * -|d|. */
typedef struct {
    K(v) high, low, t, away;
} K(unlike_pair);

/* The exponential of y or of x, whichever is told, to the scale of w. */
KLCE_INLINE K(v) K(exp_of_either)(const K(expsum_context) *c, const K(pair_measure) *by, K(m) of_y,
                                  K(v) x, K(v) y)
{
    K(measure) from;
    from.floor = K(select)(of_y, by->q.floor, by->p.floor);
    from.magic = K(select)(of_y, by->q.magic, by->p.magic);
    K(v) e = K(exp_measured)(c, &from, K(max)(from.floor, K(select)(of_y, y, x)));
    return K(select)(of_y, e * by->ratio, e);
}

/* 42 instructions a vector in float32, and 17 for low.  Both -inf is a class far from one another
 * at the floor. */
KLCE_INLINE K(unlike_pair) K(unlike_pair_of)(const K(expsum_context) *c, const K(pair_measure) *by,
                                             K(v) x, K(v) y, int low)
{
    K(unlike_pair) pair;
    K(v) d = K(log_ratio)(by, x, y), zero = K(set)(0);
    K(m) q_leads = K(lt)(zero, d);
    pair.high = K(exp_of_either)(c, by, q_leads, x, y);
    pair.low = low ? K(exp_of_either)(c, by, K(not)(q_leads), x, y) : zero;
    K(measure) plain = {zero, zero, K(set)(K(KLCE_MAGIC) + K(KLCE_BIAS))};
    pair.away = K(max)(K(min)(d, -d), K(set)((real)(UNLIKE_FARTHEST * c->t))); /* of nan, that */
    pair.t = K(exp_measured)(c, &plain, pair.away);
    return pair;
}

/* Twice a class's part of JS over high: log 2 + t (series(t) + away/T), the series being that of
 * ((1 + t) log(2/(1 + t)) - log 2)/t from 0 to 1, to 2^-27 (2^-55) of 1 (tools/minimax.py). */
KLCE_INLINE K(v) K(js_of_unlike)(const K(expsum_context) *c, const K(unlike_pair) *pair)
{
#if KLCE_REAL_IS_F64
    static const double series[] = {
        -0.306852819440066757,    -0.499999999998170592,    0.166666666568872603,
        -0.0833333306615432241,   0.0499999560111751831,    -0.0333328539869682497,
        0.0238058528280659585,    -0.0178365552046342424,   0.0138018011266373435,
        -0.0108270366849684956,   0.00836379420913397372,   -0.00609314052658673959,
        0.00396475856059114999,   -0.00216931246380165191,  0.000934089712294072972,
        -0.000291572474704307759, 0.0000580016377123413899, -5.47977298369985242e-6};
#else
    static const float series[] = {-0.3068534444f,  -0.4999782145f,  0.1664043342f,
                                   -0.08177358995f, 0.04467230562f,  -0.02195993609f,
                                   0.007642414466f, -0.001301055588f};
#endif
    K(v) t = pair->t;
    K(v) s = K(series)(series, (int)(sizeof series / sizeof *series) - 1, t, t * t);
    s = K(fma)(pair->away, K(set)(c->e.c1), s);
    return K(fma)(t, s, K(set)((real)0x1.62e42fefa39efp-1));
}

/* The sums of a row's classes from `low` to `high`, at the scale of w, in the order of UNLIKE_SUMS:
 * twice the JS, |q - p|, p q. */
enum { K(UNLIKE_SUMS) = 3 };

KLCE_INLINE void K(sum_unlike)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                               const double *state, const int *wanted, double *total)
{
    const K(expsum_context) *c = K(context)(call);
    const elem *x = K(row_in)(call, 0, row), *y = K(row_in)(call, 1, row);
    const K(pair_measure) by = K(pair_measure_of)(c, state);
    K(lanes) sums[K(UNLIKE_SUMS)];
    K(v) x_group[VECTORS], y_group[VECTORS], sum[K(UNLIKE_SUMS)][VECTORS];
    KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) sums[k] = K(no_lanes)();
    for (ptrdiff_t i = low; i < high; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, high);
        KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) EACH_VECTOR(v) sum[k][v] = K(set)(0);
        for (ptrdiff_t j = i; j < end; j += LANES) {
            K(prefetch_later_pair)(x + j, y + j, call->n);
            K(load_group)(x + j, end - j, (real)-INFINITY, x_group);
            K(load_group)(y + j, end - j, (real)-INFINITY, y_group);
            EACH_VECTOR(v)
            {
                K(unlike_pair) pair = K(unlike_pair_of)(c, &by, x_group[v], y_group[v], wanted[2]);
                if (wanted[0])
                    sum[0][v] = K(fma)(pair.high, K(js_of_unlike)(c, &pair), sum[0][v]);
                if (wanted[1])
                    sum[1][v] = sum[1][v] + K(fma)(-pair.high, pair.t, pair.high);
                if (wanted[2])
                    sum[2][v] = K(fma)(pair.high * K(set)((real)PAIR_UNBOOST), pair.low, sum[2][v]);
            }
        }
        KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) if (wanted[k])
            K(add_lanes)(&sums[k], sum[k]);
    }
    KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) total[k] = K(total)(&sums[k]);
}

#undef UNLIKE_FARTHEST
