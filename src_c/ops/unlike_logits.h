/* Pairs of rows of logits that are unlike, as unlike.h says, x (of p) and y (of q): JS, the total
 * variation and the expected agreement.
 *
 * One exponential is of the larger of both and the other of their distance, so that no class needs
 * another way. */

/* The least -|d|/T, whose exponential is nothing beside 1 and its square still a normal number. */
#define UNLIKE_FARTHEST (KLCE_REAL_IS_F64 ? -100 : -40)

/* Whether rows may be that unlike, by their first classes: log(q/p) of a deviation of 0.8, whose KL
 * is a third of a nat and JS a fourteenth, ranges over 3 or more in so many.  A guess: if it is
 * wrong, a sum was for nothing, or a sweep. */
KLCE_INLINE int K(seem_unlike)(const K(expsum_context) *c, const elem *x, const elem *y)
{
    K(v) x_group[VECTORS], y_group[VECTORS];
    K(v) most = K(set)((real)-INFINITY), least = K(set)((real)INFINITY);
    for (int j = 0; j < UNLIKE_SAMPLE; j += LANES) {
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

/* high and, if asked for, low = min(p, q), both to the scale of w as logit_pairs.h has it; -|d|. */
typedef struct {
    K(v) high, low, away;
} K(unlike_pair);

/* The exponential of y or of x, each from its origin, whichever is told, to the scale of w. */
KLCE_INLINE K(v) K(exp_of_either)(const K(expsum_context) *c, const K(pair_measure) *by, K(m) of_y,
                                  K(v) x, K(v) y)
{
    K(measure) from;
    from.floor = K(select)(of_y, by->q.floor, by->p.floor);
    from.magic = K(select)(of_y, by->q.magic, by->p.magic);
    K(v) e = K(exp_measured)(c, &from, K(max)(from.floor, K(select)(of_y, y, x)));
    return K(select)(of_y, e * by->ratio, e);
}

/* 32 instructions a vector in float32, and 18 for low.  Both -inf is a class far from one another
 * at the floor. */
KLCE_INLINE K(unlike_pair) K(unlike_pair_of)(const K(expsum_context) *c, const K(pair_measure) *by,
                                             K(v) x, K(v) y, int low)
{
    K(unlike_pair) pair;
    K(v) d = K(log_ratio)(by, x, y), zero = K(set)(0);
    K(m) q_leads = K(lt)(zero, d);
    pair.high = K(exp_of_either)(c, by, q_leads, x, y);
    pair.low = low ? K(exp_of_either)(c, by, K(not)(q_leads), x, y) : zero;
    pair.away = K(max)(K(min)(d, -d), K(set)((real)(UNLIKE_FARTHEST * c->t))); /* of nan, that */
    return pair;
}

/* t = exp(-|d|/T): 12 instructions. */
KLCE_INLINE K(v) K(exp_of_away)(const K(expsum_context) *c, K(v) away)
{
    K(measure) plain = {K(set)(0), K(set)(0), K(set)(K(KLCE_MAGIC) + K(KLCE_BIAS))};
    return K(exp_measured)(c, &plain, away);
}

/* Twice a class's part of JS over high: 11 instructions. */
KLCE_INLINE K(v) K(js_of_unlike)(const K(expsum_context) *c, const K(unlike_pair) *pair, K(v) t)
{
    K(v) s = K(fma)(pair->away, K(set)(c->e.c1), K(unlike_series)(t));
    return K(fma)(t, s, K(set)((real)LOG_2));
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
    K(unlike_pair) pairs[FLUSH / WIDTH];
    KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) sums[k] = K(no_lanes)();
    for (ptrdiff_t i = low; i < high; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, high);
        int vectors = 0;
        for (ptrdiff_t j = i; j < end; j += LANES, vectors += VECTORS) {
            K(prefetch_later_pair)(x + j, y + j, call->n);
            K(load_group)(x + j, end - j, (real)-INFINITY, x_group);
            K(load_group)(y + j, end - j, (real)-INFINITY, y_group);
            EACH_VECTOR(v)
            pairs[vectors + v] = K(unlike_pair_of)(c, &by, x_group[v], y_group[v], wanted[2]);
        }
        KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) EACH_VECTOR(v) sum[k][v] = K(set)(0);
        for (int m = 0; m < vectors; m += VECTORS)
            EACH_VECTOR(v)
            {
                const K(unlike_pair) *pair = &pairs[m + v];
                K(v) high = pair->high, t = K(exp_of_away)(c, pair->away);
                if (wanted[0])
                    sum[0][v] = K(fma)(high, K(js_of_unlike)(c, pair, t), sum[0][v]);
                if (wanted[1])
                    sum[1][v] = sum[1][v] + K(fma)(-high, t, high);
                if (wanted[2])
                    sum[2][v] = K(fma)(high * K(set)((real)PAIR_UNBOOST), pair->low, sum[2][v]);
            }
        KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) if (wanted[k])
            K(add_lanes)(&sums[k], sum[k]);
    }
    KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) total[k] = K(total)(&sums[k]);
}
