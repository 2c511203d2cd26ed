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

/* t = exp(-|d|/T): 12 instructions. */
KLCE_INLINE K(v) K(exp_of_away)(const K(expsum_context) *c, K(v) away)
{
    K(measure) plain = {K(set)(0), K(set)(0), K(set)(K(KLCE_MAGIC) + K(KLCE_BIAS))};
    return K(exp_measured)(c, &plain, away);
}

/* What is summed at a time of two rows' classes, each found in a loop of its own (see
 * pair_terms.h): d; high = max(p, q) and, if asked for, low = min(p, q), both to the scale of w;
 * and t. */
typedef struct {
    int vectors;
    K(v) d[FLUSH / WIDTH], high[FLUSH / WIDTH], low[FLUSH / WIDTH], t[FLUSH / WIDTH];
} K(unlike_classes);

/* -|d|, or the least of which t is anything: of nan that, where both are -inf. */
KLCE_INLINE K(v) K(away_of)(const K(expsum_context) *c, K(v) d)
{
    return K(max)(K(min)(d, -d), K(set)((real)(UNLIKE_FARTHEST * c->t)));
}

/* Of `count` classes: some 50 instructions a vector in float32, and 18 for low.  What is no class
 * is -inf in both rows, and both -inf is a class far from one another at the floor. */
KLCE_INLINE void K(unlike_classes_of)(const K(expsum_context) *c, const K(pair_measure) *by,
                                      const elem *x, const elem *y, ptrdiff_t count, int low,
                                      K(unlike_classes) *of)
{
    K(v) x_group[VECTORS], y_group[VECTORS], zero = K(set)(0);
    of->vectors = 0;
    for (ptrdiff_t j = 0; j < count; j += LANES, of->vectors += VECTORS) {
        K(load_group)(x + j, count - j, (real)-INFINITY, x_group);
        K(load_group)(y + j, count - j, (real)-INFINITY, y_group);
        EACH_VECTOR(v)
        {
            K(v) d = K(log_ratio)(by, x_group[v], y_group[v]);
            K(m) q_leads = K(lt)(zero, d);
            of->d[of->vectors + v] = d;
            of->high[of->vectors + v] = K(select)(q_leads, y_group[v], x_group[v]);
            of->low[of->vectors + v] = K(select)(q_leads, x_group[v], y_group[v]);
        }
    }
    for (int m = 0; m < of->vectors; m += VECTORS)
        EACH_VECTOR(v)
        {
            K(m) q_leads = K(lt)(zero, of->d[m + v]);
            K(v) high = of->high[m + v];
            of->high[m + v] = K(exp_of_either)(c, by, q_leads, high, high);
        }
    for (int m = 0; low && m < of->vectors; m += VECTORS)
        EACH_VECTOR(v)
        {
            K(m) q_leads = K(lt)(zero, of->d[m + v]);
            K(v) least = of->low[m + v];
            of->low[m + v] = K(exp_of_either)(c, by, K(not)(q_leads), least, least);
        }
    for (int m = 0; m < of->vectors; m += VECTORS)
        EACH_VECTOR(v) of->t[m + v] = K(exp_of_away)(c, K(away_of)(c, of->d[m + v]));
}

/* Twice a class's part of JS over high: 13 instructions. */
KLCE_INLINE K(v) K(js_of_unlike)(const K(expsum_context) *c, K(v) d, K(v) t)
{
    K(v) s = K(fma)(K(away_of)(c, d), K(set)(c->e.c1), K(unlike_series)(t));
    return K(fma)(t, s, K(set)(K(KLCE_LN2)));
}

/* The sums of a row's classes from `low` to `high`, at the scale of w, in the order of UNLIKE_SUMS:
 * twice the JS, |q - p|, p q. */
enum { K(UNLIKE_SUMS) = 3 };

KLCE_INLINE void K(sum_unlike)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                               const double *state, const int *wanted, double *total)
{
    const K(expsum_context) own = *K(context)(call), *c = &own;
    const elem *x = K(row_in)(call, 0, row), *y = K(row_in)(call, 1, row);
    const K(pair_measure) by = K(pair_measure_of)(c, state);
    K(lanes) sums[K(UNLIKE_SUMS)];
    K(v) sum[K(UNLIKE_SUMS)][VECTORS];
    K(unlike_classes) of;
    KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) sums[k] = K(no_lanes)();
    for (ptrdiff_t i = low; i < high; i += FLUSH) {
        ptrdiff_t count = KLCE_LESSER(FLUSH, high - i);
        for (ptrdiff_t j = 0; j < count; j += LANES)
            K(prefetch_later_pair)(x + i + j, y + i + j, call->n);
        K(unlike_classes_of)(c, &by, x + i, y + i, count, wanted[2], &of);
        KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) EACH_VECTOR(v) sum[k][v] = K(set)(0);
#define ADD(k, term)                                                                               \
    for (int m = 0; wanted[k] && m < of.vectors; m += VECTORS)                                     \
        EACH_VECTOR(v)                                                                             \
        {                                                                                          \
            K(v) from = of.high[m + v], t = of.t[m + v];                                           \
            (void)t;                                                                               \
            sum[k][v] = term;                                                                      \
        }
        ADD(0, K(fma)(from, K(js_of_unlike)(c, of.d[m + v], t), sum[0][v]))
        ADD(1, sum[1][v] + K(fma)(-from, t, from))
        ADD(2, K(fma)(from * K(set)((real)PAIR_UNBOOST), of.low[m + v], sum[2][v]))
#undef ADD
        KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) if (wanted[k])
            K(add_lanes)(&sums[k], sum[k]);
    }
    KLCE_UNROLL for (int k = 0; k < K(UNLIKE_SUMS); k++) total[k] = K(total)(&sums[k]);
}

#undef UNLIKE_FARTHEST
