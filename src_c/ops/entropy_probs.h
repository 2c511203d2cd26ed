/* entropy of probabilities, up to scale: with S = max + rest and T the sum of p log(1/p) over all
 * but the maximum,
 *     log1p(rest/max) max/S + (T + rest log(S))/S;
 * or -sum p log p as it stands (normalize = 0).
 *
 * All of T is positive where p is at most 1, so that nothing cancels, and what is added to it is in
 * float64.  Rows whose sum is not from 1/2 to 2 are swept once more, with p measured from the
 * largest seen so far: log1p(rest/max) + sum p log(max/p)/S, however the row is scaled.
 */

/* MAX is as in expsum.h, REST the plain sum of the others, WEIGHTED that of p log(1/p), or where p
 * is measured of p log(max/p), `weighted_unit` times. */
enum { K(MEASURED) = K(ORIGIN) }; /* whether it is to be, or was */

/* RAISED where all p are small: in a subnormal number that sum would have few digits, or none. */
KLCE_INLINE double K(weighted_unit)(double max, int measured)
{
    return measured && max < (double)SMALL ? RAISED : 1;
}

/* What p is measured by: 1 over the maximum, over RAISED times it where it is small itself; and
 * what log2 of a raised p over it is too large by. */
typedef struct {
    K(v) inverse, shift;
} K(entropy_measure);

KLCE_INLINE K(entropy_measure) K(entropy_unmeasured)(void)
{
    return (K(entropy_measure)){K(set)(1), K(set)(RAISE)};
}

KLCE_INLINE K(entropy_measure) K(entropy_measure_from)(K(v) max)
{
    K(v) zero = K(set)(0), one = K(set)(1);
    K(m) small = K(lt)(max, K(set)(SMALL));
    K(v) whole = max * K(select)(small, K(set)(RAISED), one);
    return (K(entropy_measure)){K(select)(K(lt)(zero, max), one / whole, one),
                                K(select)(small, zero, K(set)(RAISE))};
}

/* sum + p log(1/p), or p log(max/p): 20 instructions a vector in float32.  A p of 0, or so small
 * that its quotient is subnormal, gives a finite garbage logarithm times next to nothing. */
KLCE_INLINE K(v) K(add_entropy)(K(v) sum, K(v) p, const K(entropy_measure) *from, int measured)
{
    return K(fma)(-p, K(log_term)(measured ? p * from->inverse : p), sum);
}

/* The same of a vector with a p that is small, whose terms go to a sum of their own; the others
 * have the same bits beside it. */
KLCE_INLINE void K(add_careful_entropy)(K(v) *plain, K(v) *raised, K(v) p,
                                        const K(entropy_measure) *from)
{
    K(m) small = K(lt)(p, K(set)(SMALL));
    K(v) own = K(select)(small, K(raised)(p), p);
    K(log_parts) parts = K(log_reduce)(own * from->inverse);
    K(v) k = K(float_of)(parts.k) - K(select)(small, from->shift, K(set)(0));
    K(v) log = K(log_join_term)(k, parts.f);
    *plain = K(select)(small, *plain, K(fma)(-own, log, *plain));
    *raised = K(select)(small, K(fma)(-own, log, *raised), *raised);
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
KLCE_INLINE void K(entropy_probs_settle)(double *state, int ties, real min, int measured)
{
    double max = state[FIELD(MAX)];
    if (ties > 0 && max > 0) {
        state[FIELD(REST)] += ties * max;
        if (!measured)
            state[FIELD(WEIGHTED)] += ties * max * K(log_quotient)(1, max);
    }
    if (min < 0)
        state[FIELD(REST)] = NAN;
}

/* The first sweep (measured = 0) and the other one: blocks then, whose maximum is known before. */
KLCE_INLINE void K(entropy_probs)(const elem *p, ptrdiff_t n, double *state, int measured)
{
    real max = 0;
    K(lanes) rest = K(no_lanes)(), weighted = K(no_lanes)(), raised = K(no_lanes)();
    K(entropy_measure) from = K(entropy_unmeasured)();
    K(v) most[VECTORS], sum[VECTORS], group[VECTORS];
    K(v) product[VECTORS], raised_product[VECTORS], lowest = K(set)((real)INFINITY);
    K(load_group)(p, n, 0, most);
    ptrdiff_t block = measured ? BLOCK : n;
    for (ptrdiff_t start = 0; start < n; start += block) {
        ptrdiff_t length = KLCE_LESSER(block, n - start);
        real own = measured ? K(max_in_chains)(p + start, length) : 0;
        if (own > max) {
            if (max > 0) {
                double unit = K(weighted_unit)(max, measured);
                K(add_scaled_lanes)(unit == 1 ? &weighted : &raised, &rest,
                                    unit * K(log_quotient)(own, max));
            }
            from = K(entropy_measure_from)(K(set)(own));
            max = own;
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
                lowest = K(min)(least, lowest);
                int careful = K(any)(K(lt)(least, K(set)(SMALL))) && K(any_small)(loser, VECTORS);
                any_careful |= careful;
                EACH_VECTOR(v)
                {
                    if (!careful) {
                        product[v] = K(add_entropy)(product[v], loser[v], &from, measured);
                        continue;
                    }
                    K(add_careful_entropy)(&product[v], &raised_product[v], loser[v], &from);
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
    K(v) top = K(set)(0);
    EACH_VECTOR(v) top = K(max)(most[v], top);
    max = K(hmax)(top);
    top = K(set)(max);
    EACH_VECTOR(v)
    {
        sum[v] = K(select)(K(eq)(most[v], top), K(set)(0), most[v]);
        product[v] = raised_product[v] = K(set)(0);
        K(add_careful_entropy)(&product[v], &raised_product[v], sum[v], &from);
        lowest = K(min)(most[v], lowest);
        V(store)(lane + v * WIDTH, most[v]);
    }
    for (int i = 0; i < LANES; i++)
        ties += lane[i] == max;
    K(add_lanes)(&rest, sum);
    K(add_lanes)(&weighted, product);
    K(add_lanes)(&raised, raised_product);
    state[FIELD(MAX)] = max;
    state[FIELD(REST)] = K(total)(&rest);
    double unit = K(weighted_unit)(max, measured);
    state[FIELD(WEIGHTED)] = K(total)(&weighted) * unit + K(total)(&raised) * (unit * UNRAISED);
    K(entropy_probs_settle)(state, ties, -(real)K(hmax)(-lowest), measured);
}

KLCE_INLINE int K(entropy_normalizes)(const klce_call *call)
{
    return *(const int64_t *)call->arg[1] != 0;
}

/* Whether the sum is 2 and more, as far as the first classes tell. */
KLCE_INLINE int K(seems_beyond)(const elem *p, ptrdiff_t n)
{
    K(v) group[VECTORS], most = K(set)(0);
    K(load_group)(p, n, 0, group);
    EACH_VECTOR(v) most = K(max)(group[v], most);
    return K(any)(K(lt)(K(set)(2), most));
}

static void K(entropy_probs_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                   ptrdiff_t high, double *state)
{
    const elem *p = K(row_in)(call, 0, row) + low;
    if (!K(entropy_normalizes)(call) || !K(seems_beyond)(p, high - low)) {
        K(entropy_probs)(p, high - low, state, 0);
        return;
    }
    state[FIELD(MAX)] = state[FIELD(WEIGHTED)] = 0;
    state[FIELD(REST)] = INFINITY;
}

static void K(entropy_probs_sweep_measured)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                            ptrdiff_t high, double *state)
{
    if (state[FIELD(MEASURED)] != 0)
        K(entropy_probs)(K(row_in)(call, 0, row) + low, high - low, state, 1);
}

KLCE_INLINE void K(entropy_probs_join)(double *into, const double *from, int measured)
{
    enum { M = FIELD(MAX), S = FIELD(REST), B = FIELD(WEIGHTED) };
    int from_wins = from[M] > into[M];
    const double *low = from_wins ? into : from, *high = from_wins ? from : into;
    double unit = K(weighted_unit)(high[M], measured), mass = low[S] + low[M];
    double weighted = high[B] + low[B] * (unit / K(weighted_unit)(low[M], measured));
    if (low[M] > 0)
        weighted += measured ? unit * mass * K(log_quotient)(high[M], low[M])
                             : low[M] * K(log_quotient)(1, low[M]);
    double max = high[M], rest = high[S] + mass;
    into[M] = max;
    into[S] = rest;
    into[B] = weighted;
}

static void K(entropy_probs_merge)(const klce_call *call, double *into, const double *from)
{
    (void)call;
    K(entropy_probs_join)(into, from, 0);
}

static void K(entropy_probs_merge_measured)(const klce_call *call, double *into, const double *from)
{
    (void)call;
    if (into[FIELD(MEASURED)] != 0)
        K(entropy_probs_join)(into, from, 1);
}

/* Tells which rows are to be measured; whether any is. */
KLCE_INLINE int K(find_measured)(ptrdiff_t count, double *state)
{
    v_f64 zero = set_f64(0), one = set_f64(1);
    m_f64 any = lt_f64(one, zero);
    EACH_STATE(i, count)
    {
        v_f64 sum = K(state)(state, K(MAX), i) + K(state)(state, K(REST), i);
        m_f64 far = or_f64(lt_f64(sum, set_f64(0.5)), lt_f64(set_f64(2), sum));
        store_f64(state + FIELD(MEASURED) + i, select_f64(far, one, zero));
        any = or_f64(any, far);
    }
    return any_f64(any);
}

static void K(entropy_probs_look)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                  double *state)
{
    (void)row;
    if (K(entropy_normalizes)(call))
        K(find_measured)(count, state);
    else
        memset(state + FIELD(MEASURED), 0, (size_t)count * sizeof(double));
}

static void K(entropy_probs_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                    double *state)
{
    int normalize = K(entropy_normalizes)(call);
    double result[KLCE_TILE];
    v_f64 zero = set_f64(0), one = set_f64(1);
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i), rest = K(state)(state, K(REST), i);
        v_f64 weighted = K(state)(state, K(WEIGHTED), i), h;
        if (normalize) {
            m_f64 measured = lt_f64(zero, K(state)(state, K(MEASURED), i));
            v_f64 sum = max + rest, s = (max - one) + rest, log_sum = s - log1p_gap_f64(s);
            m_f64 small = lt_f64(max, set_f64(SMALL));
            if (any_f64(small)) /* measured rows: as many times as WEIGHTED is */
                sum = select_f64(small, sum * set_f64(RAISED), sum);
            v_f64 inverse = one / sum;
            v_f64 share = select_f64(measured, one, max * inverse);
            weighted = weighted + select_f64(measured, zero, rest * log_sum);
            /* A maximum of 0 or inf leaves no distribution: 0/0 and inf/inf are nan. */
            v_f64 known = weighted * inverse + (max - max);
            h = fma_f64(K(log1p_for)(rest / max), share, known);
        } else {
            v_f64 own = select_f64(eq_f64(max, zero), zero, max * log_f64(max));
            h = weighted - own + (rest - rest) + (max - max);
        }
        store_f64(result + i, h);
    }
    K(put)(call, 2, row, count, result);
}

/* Either sweep of a tile, whose rows are loaded, and lost. */
KLCE_INLINE void K(entropy_probs_columns)(ptrdiff_t n, K(v) *p, double *state, int measured)
{
    int several = n > LANES;
    K(v) sum[LANES], product[LANES], raised[LANES];
    K(v) *most = p, last[LANES], last_raised[LANES]; /* of the first columns, in their place */
    K(v) zero = K(set)(0), one = K(set)(1), ties = -one;
    K(v) min = K(min_of_columns)(p, n, K(set)((real)INFINITY));
    K(v) max = measured ? K(max_of_columns)(p, n, zero) : zero;
    const K(entropy_measure) from =
        measured ? K(entropy_measure_from)(max) : K(entropy_unmeasured)();
    int careful = K(any)(K(lt)(min, K(set)(SMALL))) && K(any_small)(p, n);
    if (several)
        EACH_LANE(l, 0, n) sum[l] = product[l] = raised[l] = zero;
    for (ptrdiff_t group = LANES; group < n; group += LANES)
        EACH_LANE(l, group, n)
        {
            K(v) own = p[group + l], loser = K(min)(most[l], own);
            most[l] = K(max)(own, most[l]);
            sum[l] = sum[l] + loser;
            if (!careful) {
                product[l] = K(add_entropy)(product[l], loser, &from, measured);
                continue;
            }
            K(add_careful_entropy)(&product[l], &raised[l], loser, &from);
        }
    if (!measured)
        max = K(max_of_columns)(most, KLCE_LESSER(LANES, n), zero);
    EACH_LANE(l, 0, n)
    {
        K(m) is_top = K(eq)(most[l], max);
        ties = ties + K(select)(is_top, one, zero);
        most[l] = K(select)(is_top, zero, most[l]);
        if (!careful) {
            last[l] = K(add_entropy)(zero, most[l], &from, measured);
            continue;
        }
        last[l] = last_raised[l] = zero;
        K(add_careful_entropy)(&last[l], &last_raised[l], most[l], &from);
    }
    K(store_field)(state + FIELD(MAX), max);
    if (several) {
        K(sum_column_pairs)(sum, most, n, state + FIELD(REST));
        K(sum_column_pairs)(product, last, n, state + FIELD(WEIGHTED));
    } else {
        K(sum_columns)(most, n, state + FIELD(REST));
        K(sum_columns)(last, n, state + FIELD(WEIGHTED));
    }
    if (careful) {
        double sums[WIDTH], *field = state + FIELD(WEIGHTED);
        K(sum_column_pairs)(last_raised, several ? raised : NULL, n, sums);
        for (int k = 0; k < WIDTH; k++) {
            double unit = K(weighted_unit)(state[FIELD(MAX) + k], measured);
            field[k] = field[k] * unit + sums[k] * (unit * UNRAISED);
        }
    }
    if (!K(any)(K(or)(K(lt)(zero, ties), K(lt)(min, zero))))
        return; /* nothing to settle */
    real tied[WIDTH], least[WIDTH];
    V(store)(tied, ties);
    V(store)(least, min);
    for (int k = 0; k < WIDTH; k++)
        K(entropy_probs_settle)(state + k, (int)tied[k], least[k], measured);
}

/* Whether each of WIDTH rows seems so. */
KLCE_INLINE int K(all_seem_beyond)(const K(v) *p, ptrdiff_t n)
{
    K(v) two = K(set)(2), most = two;
    for (ptrdiff_t j = 0; j < KLCE_LESSER(4, n); j++)
        most = K(max)(p[j], most);
    return !K(any)(K(eq)(most, two));
}

/* The other sweep, of those of a tile's rows that are to be measured. */
static KLCE_NOINLINE void K(entropy_probs_few_measured)(const klce_call *call, ptrdiff_t row,
                                                        double *state)
{
    static const int summed[] = {K(MAX), K(REST), K(WEIGHTED)};
    double again[KLCE_FIELDS * KLCE_TILE];
    const ptrdiff_t n = call->n;
    K(v) p[FEW];
    if (n < 1) /* never: for a compiler that would fear sums of nothing */
        return;
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(load_columns)(call, 0, row + i, p);
        K(entropy_probs_columns)(n, p, again + i, 1);
    }
    for (int f = 0; f < 3; f++)
        for (int i = 0; i < KLCE_TILE; i++)
            if (state[FIELD(MEASURED) + i] != 0)
                state[summed[f] * KLCE_TILE + i] = again[summed[f] * KLCE_TILE + i];
}

static void K(entropy_probs_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    int normalize = K(entropy_normalizes)(call);
    const ptrdiff_t n = call->n;
    K(v) p[FEW];
    if (n < 1) /* never, as above */
        return;
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(load_columns)(call, 0, row + i, p);
        if (!normalize || !K(all_seem_beyond)(p, n)) {
            K(entropy_probs_columns)(n, p, state + i, 0);
            continue;
        }
        for (int k = i; k < i + WIDTH; k++) {
            state[FIELD(MAX) + k] = state[FIELD(WEIGHTED) + k] = 0;
            state[FIELD(REST) + k] = INFINITY;
        }
    }
    if (!normalize)
        memset(state + FIELD(MEASURED), 0, KLCE_TILE * sizeof(double));
    else if (K(find_measured)(KLCE_TILE, state))
        K(entropy_probs_few_measured)(call, row, state);
    K(entropy_probs_finish)(call, row, KLCE_TILE, state);
}

/* Rows that lie side by side: what they sum to, and of each lane the largest so far; the least. */
typedef struct {
    K(abreast_sums) rest, weighted;
    K(v) most[LANES][K(ABREAST_VECTORS)], lowest[K(ABREAST_VECTORS)];
} K(entropy_abreast);

/* The first sweep of such rows, 58 instructions a vector in float32, all told; 0 where one holds a
 * small probability, or seems to sum to more than 2. */
KLCE_INLINE int K(entropy_sum_abreast)(const klce_call *call, ptrdiff_t row,
                                       K(entropy_abreast) *sums)
{
    const K(entropy_measure) from = K(entropy_unmeasured)();
    K(v) two = K(set)(2), beyond = two;
    for (int l = 0; l < LANES; l++)
        for (int w = 0; w < K(ABREAST_VECTORS); w++) {
            sums->most[l][w] = K(load)(K(class_of)(call, 0, row, l) + w * WIDTH);
            beyond = K(max)(sums->most[l][w], beyond);
        }
    if (K(entropy_normalizes)(call) && K(any)(K(lt)(two, beyond))) /* to be measured */
        return 0;
    for (ptrdiff_t j = LANES; j < call->n; j++) {
        const elem *p = K(class_of)(call, 0, row, j);
        const int lane = (int)(j % LANES);
        K(prefetch_class)(call, 0, row, j);
        for (int first = 0; first < K(ABREAST_VECTORS); first += K(ABREAST_STEP)) {
            K(v) loser[K(ABREAST_STEP)], least = K(set)(SMALL), *most = sums->most[lane] + first;
            K(v) *rest = sums->rest.part[lane] + first, *lowest = sums->lowest + first;
            K(v) *weighted = sums->weighted.part[lane] + first;
            EACH_IN_STEP(w)
            {
                K(v) own = K(load)(p + (first + w) * WIDTH);
                loser[w] = K(min)(most[w], own);
                most[w] = K(max)(own, most[w]);
                rest[w] = rest[w] + loser[w];
                lowest[w] = K(min)(loser[w], lowest[w]);
                least = K(min)(loser[w], least);
            }
            if (K(any)(K(lt)(least, K(set)(SMALL))) && K(any_small)(loser, K(ABREAST_STEP)))
                return 0;
            EACH_IN_STEP(w) weighted[w] = K(add_entropy)(weighted[w], loser[w], &from, 0);
        }
        if (K(is_flushed)(j, call->n)) {
            K(flush_abreast)(&sums->rest);
            K(flush_abreast)(&sums->weighted);
        }
    }
    return 1;
}

/* Adds what the lanes still hold, but for one of the maxima. */
KLCE_INLINE int K(entropy_close_abreast)(K(entropy_abreast) *sums, K(abreast_states) *states)
{
    const K(entropy_measure) from = K(entropy_unmeasured)();
    K(v) zero = K(set)(0), one = K(set)(1);
    real max[KLCE_ABREAST], tied[KLCE_ABREAST], lowest[KLCE_ABREAST];
    for (int w = 0; w < K(ABREAST_VECTORS); w++) {
        K(v) top = zero, ties = -one, low = sums->lowest[w];
        for (int l = 0; l < LANES; l++)
            top = K(max)(sums->most[l][w], top);
        for (int l = 0; l < LANES; l++) {
            K(v) own = sums->most[l][w];
            K(m) is_top = K(eq)(own, top);
            K(v) loser = K(select)(is_top, zero, own);
            if (K(any_small)(&loser, 1))
                return 0;
            ties = ties + K(select)(is_top, one, zero);
            low = K(min)(own, low);
            sums->rest.part[l][w] = loser;
            sums->weighted.part[l][w] = K(add_entropy)(zero, loser, &from, 0);
        }
        V(store)(max + w * WIDTH, top);
        V(store)(tied + w * WIDTH, ties);
        V(store)(lowest + w * WIDTH, low);
    }
    K(flush_abreast)(&sums->rest);
    K(flush_abreast)(&sums->weighted);
    K(total_abreast)(&sums->rest, states, K(REST));
    K(total_abreast)(&sums->weighted, states, K(WEIGHTED));
    for (int i = 0; i < KLCE_ABREAST; i++) {
        double *state = states->tile[i / KLCE_TILE] + i % KLCE_TILE;
        state[FIELD(MAX)] = max[i];
        K(entropy_probs_settle)(state, (int)tied[i], lowest[i], 0);
    }
    return 1;
}

/* Where the first sweep is all. */
static int K(entropy_probs_block)(const klce_call *call, ptrdiff_t row)
{
    K(entropy_abreast) sums;
    K(abreast_states) states;
    memset(&sums, 0, sizeof sums);
    if (!K(entropy_sum_abreast)(call, row, &sums) || !K(entropy_close_abreast)(&sums, &states))
        return 0;
    for (int i = 0; i < KLCE_ABREAST; i += KLCE_TILE) {
        double *state = states.tile[i / KLCE_TILE];
        memset(state + FIELD(MEASURED), 0, KLCE_TILE * sizeof(double));
        if (K(entropy_normalizes)(call) && K(find_measured)(KLCE_TILE, state))
            return 0;
    }
    for (int i = 0; i < KLCE_ABREAST; i += KLCE_TILE)
        K(entropy_probs_finish)(call, row + i, KLCE_TILE, states.tile[i / KLCE_TILE]);
    return 1;
}

ABREAST_OF(entropy_probs)

static const klce_kernel K(entropy_probs_kernel) = {
    .pass = {{K(entropy_probs_sweep), SHARED(entropy_probs_merge), SHARED(entropy_probs_look)},
             {K(entropy_probs_sweep_measured), SHARED(entropy_probs_merge_measured),
              SHARED(entropy_probs_finish)}},
    .few = TILE_OF(entropy_probs_few),
    .abreast = K(entropy_probs_abreast),
    .most_abreast = KLCE_SEGMENT,
};
