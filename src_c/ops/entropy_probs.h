/* entropy of probabilities, up to scale: log1p(rest/max) + sum p log(max/p) / sum p, where rest and
 * the second sum leave the maximum out; or -sum p log p as it stands (normalize = 0).
 *
 * All terms are positive, so nothing cancels however the row is scaled.  The sweep measures p from
 * the largest seen so far (from 1 when not normalizing).
 */

/* MAX is as in expsum.h, REST the plain sum of the others, WEIGHTED that of p log(max/p). */

/* What measures p from the maximum: 1 over it, over RAISED times it where it is small itself; and
 * what log2 of a raised p over it is too large by. */
typedef struct {
    K(v) inverse, shift;
} K(entropy_measure);

KLCE_INLINE K(entropy_measure) K(entropy_measure_from)(K(v) max, int normalize)
{
    K(v) zero = K(set)(0), one = K(set)(1), shift = K(set)(RAISE);
    if (!normalize)
        return (K(entropy_measure)){one, shift};
    K(m) small = K(lt)(max, K(set)(SMALL));
    K(v) whole = max * K(select)(small, K(set)(RAISED), one);
    return (K(entropy_measure)){K(select)(K(lt)(zero, max), one / whole, one),
                                K(select)(small, zero, shift)};
}

/* p log(max/p), 23 instructions a vector in float32.  A p of 0, or so small that its quotient is
 * subnormal, gives a finite garbage logarithm times next to nothing.  `careful` serves vectors with
 * a p that is small. */
KLCE_INLINE K(term) K(entropy_probs_term)(K(v) p, const K(entropy_measure) *from, int careful)
{
    K(v) zero = K(set)(0), inverse = from->inverse;
    if (!careful)
        return (K(term)){zero - p * K(log_normal)(p * inverse), zero};
    K(m) small = K(lt)(p, K(set)(SMALL));
    K(v) own = K(select)(small, K(raised)(p), p);
    K(log_parts) parts = K(log_reduce)(own * inverse);
    K(v) k = K(float_of)(parts.k) - K(select)(small, from->shift, zero);
    K(v) term = zero - own * K(log_join)(k, parts.f);
    return (K(term)){K(select)(small, zero, term), K(select)(small, term, zero)};
}

/* log(a/b); the quotient of a number by a subnormal one may be beyond all. */
static KLCE_NOINLINE double K(log_quotient)(double a, double b)
{
    double quotient = a / b;
    if (quotient < INFINITY)
        return first_lane_f64(log_f64(set_f64(quotient)));
    return first_lane_f64(log_f64(set_f64(a)) - log_f64(set_f64(b)));
}

/* Adds the other maxima to the sums; a negative probability makes the row nan. */
KLCE_INLINE void K(entropy_probs_settle)(double *state, int ties, real min, int normalize)
{
    double max = state[FIELD(MAX)];
    if (ties > 0 && max > 0) {
        state[FIELD(REST)] += ties * max;
        if (!normalize)
            state[FIELD(WEIGHTED)] += ties * max * K(log_quotient)(1, max);
    }
    if (min < 0)
        state[FIELD(REST)] = NAN;
}

KLCE_INLINE void K(entropy_probs)(const elem *p, ptrdiff_t n, double *state, int normalize)
{
    real max = 0, min = (real)INFINITY;
    K(lanes) rest = K(no_lanes)(), weighted = K(no_lanes)(), raised = K(no_lanes)();
    K(entropy_measure) from = K(entropy_measure_from)(K(set)(0), 0);
    K(v) most[VECTORS], sum[VECTORS], group[VECTORS];
    K(v) product[VECTORS], raised_product[VECTORS];
    K(load_group)(p, n, 0, most);
    for (ptrdiff_t start = 0; start < n; start += BLOCK) {
        ptrdiff_t length = KLCE_LESSER(BLOCK, n - start);
        K(extremes) both = K(extremes_of)(p + start, length, 1);
        min = KLCE_LESSER(both.min, min);
        if (both.max > max) {
            if (normalize) {
                if (max > 0)
                    K(add_scaled_lanes)(&weighted, &rest, K(log_quotient)(both.max, max));
                from = K(entropy_measure_from)(K(set)(both.max), 1);
            }
            max = both.max;
        }
        for (ptrdiff_t i = start; i < start + length; i += FLUSH) {
            ptrdiff_t end = KLCE_LESSER(i + FLUSH, start + length);
            int any_careful = 0;
            EACH_VECTOR(v) sum[v] = product[v] = raised_product[v] = K(set)(0);
            for (ptrdiff_t j = i ? i : LANES; j < end; j += LANES) {
                K(v) loser[VECTORS], least = K(set)(SMALL);
                K(prefetch_group)(p + j);
                K(load_group)(p + j, end - j, 0, group);
                EACH_VECTOR(v)
                {
                    loser[v] = K(min)(most[v], group[v]);
                    most[v] = K(max)(group[v], most[v]);
                    sum[v] = sum[v] + loser[v];
                    least = K(min)(loser[v], least);
                }
                int careful = K(any)(K(lt)(least, K(set)(SMALL))) && K(any_small)(loser, VECTORS);
                any_careful |= careful;
                EACH_VECTOR(v)
                {
                    K(term)
                    term = careful ? K(entropy_probs_term)(loser[v], &from, 1)
                                   : K(entropy_probs_term)(loser[v], &from, 0);
                    product[v] = product[v] + term.plain;
                    if (careful)
                        raised_product[v] = raised_product[v] + term.raised;
                }
            }
            K(add_lanes)(&rest, sum);
            K(add_lanes)(&weighted, product);
            if (any_careful)
                K(add_lanes)(&raised, raised_product);
        }
    }
    /* What the lanes still hold, but for one of the maxima. */
    real lane[LANES];
    int ties = -1;
    K(v) is_top = K(set)(max);
    EACH_VECTOR(v)
    {
        sum[v] = K(select)(K(eq)(most[v], is_top), K(set)(0), most[v]);
        K(term) term = K(entropy_probs_term)(sum[v], &from, 1);
        product[v] = term.plain;
        raised_product[v] = term.raised;
        V(store)(lane + v * WIDTH, most[v]);
    }
    for (int i = 0; i < LANES; i++)
        ties += lane[i] == max;
    K(add_lanes)(&rest, sum);
    K(add_lanes)(&weighted, product);
    K(add_lanes)(&raised, raised_product);
    state[FIELD(MAX)] = max;
    state[FIELD(REST)] = K(total)(&rest);
    state[FIELD(WEIGHTED)] = K(total)(&weighted) + K(total)(&raised) * UNRAISED;
    K(entropy_probs_settle)(state, ties, min, normalize);
}

static void K(entropy_probs_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                   ptrdiff_t high, double *state)
{
    const elem *p = K(row_in)(call, 0, row) + low;
    if (*(const int64_t *)call->arg[1])
        K(entropy_probs)(p, high - low, state, 1);
    else
        K(entropy_probs)(p, high - low, state, 0);
}

static void K(entropy_probs_merge)(const klce_call *call, double *into, const double *from)
{
    enum { M = FIELD(MAX), S = FIELD(REST), B = FIELD(WEIGHTED) };
    int normalize = *(const int64_t *)call->arg[1] != 0, from_wins = from[M] > into[M];
    const double *low = from_wins ? into : from, *high = from_wins ? from : into;
    double mass = low[S] + low[M], weighted = high[B] + low[B];
    if (low[M] > 0)
        weighted += normalize ? mass * K(log_quotient)(high[M], low[M])
                              : low[M] * K(log_quotient)(1, low[M]);
    double max = high[M], rest = high[S] + mass;
    into[M] = max;
    into[S] = rest;
    into[B] = weighted;
}

static void K(entropy_probs_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                    double *state)
{
    int normalize = *(const int64_t *)call->arg[1] != 0;
    double result[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i), rest = K(state)(state, K(REST), i);
        v_f64 weighted = K(state)(state, K(WEIGHTED), i), h;
        if (normalize) {
            /* A maximum of 0 or inf leaves no distribution: 0/0 and inf/inf are nan. */
            h = K(log1p_for)(rest / max) + weighted / (max + rest) + (max - max);
        } else {
            v_f64 own = max * log_f64(max);
            own = select_f64(eq_f64(max, set_f64(0)), set_f64(0), own);
            h = weighted - own + (rest - rest) + (max - max);
        }
        store_f64(result + i, h);
    }
    K(put)(call, 2, row, count, result);
}

static void K(entropy_probs_few)(const klce_call *call, ptrdiff_t row)
{
    int normalize = *(const int64_t *)call->arg[1] != 0, several = call->n > LANES;
    double state[KLCE_FIELDS * KLCE_TILE];
    K(v) p[FEW], sum[LANES], product[LANES], raised[LANES];
    K(v) zero = K(set)(0), one = K(set)(1);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(load_columns)(call, 0, row + i, p);
        K(v) max = K(max_of_columns)(p, call->n, zero);
        K(v) min = K(min_of_columns)(p, call->n, K(set)((real)INFINITY)), ties = -one;
        K(v) most[LANES], last[LANES], last_raised[LANES];
        const K(entropy_measure) from = K(entropy_measure_from)(max, normalize);
        int careful = K(any)(K(lt)(min, K(set)(SMALL))) && K(any_small)(p, call->n);
        EACH_LANE(l, 0, call->n) most[l] = p[l];
        if (several)
            EACH_LANE(l, 0, call->n) sum[l] = product[l] = raised[l] = zero;
        for (ptrdiff_t group = LANES; group < call->n; group += LANES)
            EACH_LANE(l, group, call->n)
            {
                K(v) own = p[group + l], loser = K(min)(most[l], own);
                K(term) term = careful ? K(entropy_probs_term)(loser, &from, 1)
                                       : K(entropy_probs_term)(loser, &from, 0);
                most[l] = K(max)(own, most[l]);
                sum[l] = sum[l] + loser;
                product[l] = product[l] + term.plain;
                raised[l] = raised[l] + term.raised;
            }
        EACH_LANE(l, 0, call->n)
        {
            K(m) is_top = K(eq)(most[l], max);
            ties = ties + K(select)(is_top, one, zero);
            most[l] = K(select)(is_top, zero, most[l]);
            K(term) term = careful ? K(entropy_probs_term)(most[l], &from, 1)
                                   : K(entropy_probs_term)(most[l], &from, 0);
            last[l] = term.plain;
            last_raised[l] = term.raised;
        }
        K(store_field)(state + FIELD(MAX) + i, max);
        if (several) {
            K(sum_column_pairs)(sum, most, call->n, state + FIELD(REST) + i);
            K(sum_column_pairs)(product, last, call->n, state + FIELD(WEIGHTED) + i);
        } else {
            K(sum_columns)(most, call->n, state + FIELD(REST) + i);
            K(sum_columns)(last, call->n, state + FIELD(WEIGHTED) + i);
        }
        if (careful)
            K(add_raised_columns)(last_raised, several ? raised : NULL, call->n,
                                  state + FIELD(WEIGHTED) + i);
        if (!K(any)(K(or)(K(lt)(zero, ties), K(lt)(min, zero))))
            continue; /* nothing to settle */
        real tied[WIDTH], least[WIDTH];
        V(store)(tied, ties);
        V(store)(least, min);
        for (int k = 0; k < WIDTH; k++)
            K(entropy_probs_settle)(state + i + k, (int)tied[k], least[k], normalize);
    }
    K(entropy_probs_finish)(call, row, KLCE_TILE, state);
}

static const klce_kernel K(entropy_probs_kernel) = {
    .pass = {{K(entropy_probs_sweep), SHARED(entropy_probs_merge), SHARED(entropy_probs_finish)}},
    .few = TILE_OF(entropy_probs_few),
};
