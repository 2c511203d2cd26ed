/* score: what is asked for of a row of logits, from one read of it: every look beside the sums
 * finds its segment in cache, but for one look at the segment of the maximum when the row is done.
 * Operands: logits, target, ignore_index, temperature, want, candidates > numbers, integers,
 * candidates' log-probabilities, the top's indices, their log-probabilities.
 *
 * varentropy is the variance of (max - x)/T under p.  Each segment takes it about its own mean, and
 * segments join with the square of the distance of their means: sums of positive terms, where the
 * mean of squares less the square of the mean would cancel. */

/* Fields, after those of expsum.h. */
enum { K(SECOND) = K(SQUARES) + 1, K(RANK), K(BEST) };
LAST_FIELD(BEST);

/* Operands. */
enum {
    K(SCORE_TARGET) = 1,
    K(SCORE_IGNORED),
    K(SCORE_TEMPERATURE),
    K(SCORE_WANT),
    K(SCORE_CANDIDATES),
    K(SCORE_NUMBERS),
    K(SCORE_INTEGERS),
    K(SCORE_CANDIDATE_LOGS),
    K(SCORE_TOP),
    K(SCORE_TOP_LOGS)
};

static void K(score_prepare)(klce_call *call)
{
    K(temperature_prepare)(call);
    call->whole_rows = call->extent[K(SCORE_TOP)] > 0;
    call->few_together = 1;
}

/* Adds a segment to the row's top, which stands in the outputs: elements for now. */
static void K(score_top)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high)
{
    K(top) top;
    top.size = K(top_size)(call->extent[K(SCORE_TOP)]);
    top.filled = 0;
    for (; low && top.filled < top.size; top.filled++) {
        int64_t index = *K(integer_at)(call, K(SCORE_TOP), row, top.filled);
        if (index < 0)
            break;
        top.index[top.filled] = index;
        top.value[top.filled] = *K(number_at)(call, K(SCORE_TOP_LOGS), row, top.filled);
    }
    K(top_add)(&top, K(row_in)(call, 0, row) + low, high - low, low);
    for (ptrdiff_t j = 0; j < call->extent[K(SCORE_TOP)]; j++) {
        int holds = j < top.filled;
        *K(integer_at)(call, K(SCORE_TOP), row, j) = holds ? top.index[j] : -1;
        *K(number_at)(call, K(SCORE_TOP_LOGS), row, j) = holds ? top.value[j] : (real)NAN;
    }
}

/* The logit from which a row's rank counts; nan, as which none counts, if that is not asked for or
 * the label does not count. */
KLCE_INLINE real K(ranked_logit)(const klce_call *call, ptrdiff_t row)
{
    int64_t label =
        *(const int64_t *)(call->arg[K(SCORE_TARGET)] + row * call->step[K(SCORE_TARGET)]);
    int counts = WANTS(K(wanted)(call, K(SCORE_WANT)), score_rank) &&
                 label != *(const int64_t *)call->arg[K(SCORE_IGNORED)] &&
                 (uint64_t)label < (uint64_t)call->n;
    return counts ? K(value)(K(row_in)(call, 0, row)[label]) : (real)NAN;
}

/* What there is from a logit on of n elements, of which the largest is known: most pieces of a row
 * hold nothing as large as a likely label's. */
KLCE_INLINE double K(rank_in)(const elem *x, ptrdiff_t n, real logit, real max)
{
    return logit <= max ? (double)K(count_from)(x, n, logit) : 0;
}

/* The maximum of a segment, whether it holds a nan, and its part of the rank: each looks at a block
 * while that is in L1: 2 instructions a vector (load, maximum), 3 for nan, and 3 in blocks that
 * reach the label's logit. */
static KLCE_NOINLINE void K(score_looks)(const elem *x, ptrdiff_t n, real ranked, double *state)
{
    state[FIELD(MAX)] = -INFINITY;
    state[FIELD(REST)] = state[FIELD(RANK)] = state[FIELD(ORIGIN)] = state[FIELD(REF)] = 0;
    for (ptrdiff_t start = 0; start < n; start += BLOCK) {
        const elem *block = x + start;
        ptrdiff_t length = KLCE_LESSER(BLOCK, n - start);
        K(peak) peak = K(no_peak)();
        for (ptrdiff_t i = 0; i + LANES <= length; i += LANES) {
            K(prefetch_group)(block + i);
            K(raise_peak)(&peak, block + i);
        }
        real max = K(largest)(&peak, block, length);
        if (max > state[FIELD(MAX)])
            state[FIELD(MAX)] = max;
        if (K(holds_nan)(block, length))
            state[FIELD(REST)] = NAN;
        state[FIELD(RANK)] += K(rank_in)(block, length, ranked, max);
    }
}

/* Whether anything is asked for that takes the sum of the exponentials. */
KLCE_INLINE int K(score_sums)(const klce_call *call)
{
    const int64_t looks = 1 << KLCE_score_rank | 1 << KLCE_score_argmax |
                          1 << KLCE_score_greedy_match | 1 << KLCE_score_margin;
    return (K(wanted)(call, K(SCORE_WANT)) & ~looks) || call->extent[K(SCORE_CANDIDATES)] ||
           call->extent[K(SCORE_TOP)];
}

/* How many moments of max - x are asked for. */
KLCE_INLINE int K(score_moments)(const klce_call *call)
{
    int64_t want = K(wanted)(call, K(SCORE_WANT));
    return WANTS(want, score_varentropy) ? 2 : WANTS(want, score_entropy) ? 1 : 0;
}

static void K(score_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                           double *state)
{
    const K(expsum_context) *c = K(context)(call);
    const elem *x = K(row_in)(call, 0, row) + low;
    const real ranked = K(ranked_logit)(call, row);
    ptrdiff_t n = high - low;
    if (K(score_sums)(call)) {
        int moments = K(score_moments)(call);
        if (moments > 1 && n > FEW)
            K(sum_exp_and_squares)(c, x, n, state);
        else if (moments)
            K(sum_exp_and_weighted)(c, x, n, state);
        else
            K(sum_exp)(c, x, n, state);
        if (moments > 1 && n <= FEW)
            state[FIELD(SQUARES)] = K(sum_squares)(c, x, n, state);
        state[FIELD(RANK)] = K(rank_in)(x, n, ranked, (real)state[FIELD(MAX)]);
    } else {
        K(score_looks)(x, n, ranked, state);
    }
    state[FIELD(SECOND)] = -INFINITY; /* of the maxima of other segments */
    state[FIELD(BEST)] = (double)low;
    if (call->extent[K(SCORE_TOP)])
        K(score_top)(call, row, low, high);
}

static void K(score_merge)(const klce_call *call, double *into, const double *from)
{
    double lesser = from[FIELD(MAX)] < into[FIELD(MAX)] ? from[FIELD(MAX)] : into[FIELD(MAX)];
    into[FIELD(SECOND)] = fmax(lesser, fmax(into[FIELD(SECOND)], from[FIELD(SECOND)]));
    into[FIELD(RANK)] += from[FIELD(RANK)];
    K(argmax_join)(into, from, K(BEST));
    if (K(score_sums)(call)) {
        K(expsum_join)(K(context)(call), into, from, K(score_moments)(call));
    } else {
        into[FIELD(REST)] += from[FIELD(REST)];
        if (from[FIELD(MAX)] > into[FIELD(MAX)])
            into[FIELD(MAX)] = from[FIELD(MAX)];
    }
}

/* exp(x/T) over the row's sum, straight from x: what softmax gives. */
KLCE_INLINE double K(prob_of)(const K(expsum_context) *c, double x, double to_maximum, double mass,
                              const double *state)
{
    real origin = (real)state[FIELD(ORIGIN)];
    K(measure) from = K(measure_from)(c, origin, (real)state[FIELD(REF)], BOOST, FLOOR);
    K(v) z = K(max)(from.floor, K(set)((real)x) - from.origin);
    double e = (double)K(first_lane)(K(exp_measured)(c, &from, z));
    double prob = (e * UNBOOST) * (1 + to_maximum) / mass;
    prob = prob > 1 ? 1 : prob;              /* whatever rounding says */
    return x == -INFINITY ? 0 * mass : prob; /* nan of a row that is no distribution */
}

/* Writes what is wanted of rows whose BEST is the first maximum, if that is sought. */
static KLCE_NOINLINE void K(put_scores)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                        const double *state, const K(labels) *labels)
{
    const K(expsum_context) *c = K(context)(call);
    int64_t want = K(wanted)(call, K(SCORE_WANT));
    double step[KLCE_TILE], mass[KLCE_TILE], log[KLCE_TILE];
    double value[KLCE_SCORE_COUNT][KLCE_TILE];
    v_f64 inverse = set_f64(1 / c->t), zero = set_f64(0), nan = set_f64(NAN);
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i), rest = K(rest_of)(c, state, i);
        /* An infinite maximum leaves no distribution: inf - inf is nan. */
        v_f64 none = max - max, log1p = K(log_of_rest)(c, state, i), all = set_f64(1) + rest;
        m_f64 ignored = eq_f64(load_f64(labels->counted + i), zero);
        v_f64 loss = (max - load_f64(labels->value + i)) * inverse + log1p + none;
        store_f64(step + i, K(to_maximum)(c, state, i));
        store_f64(mass + i, all + none);
        store_f64(log + i, log1p + none);
        store_f64(value[KLCE_score_nll] + i, select_f64(ignored, zero, loss));
        store_f64(value[KLCE_score_target_log_prob] + i, select_f64(ignored, nan, zero - loss));
        store_f64(value[KLCE_score_max_log_prob] + i, zero - (log1p + none));
        store_f64(value[KLCE_score_logsumexp] + i, max * inverse + log1p);
        if (WANTS(want, score_margin)) {
            /* Of logits, plus 0 or nan. */
            v_f64 margin = (max - K(state)(state, K(SECOND), i)) * inverse + none;
            store_f64(value[KLCE_score_margin] + i, margin + K(state)(state, K(REST), i) * zero);
        }
        if (WANTS(want, score_entropy))
            store_f64(value[KLCE_score_entropy] + i, K(entropy_of)(c, state, i));
        if (WANTS(want, score_varentropy)) {
            v_f64 squares = K(at_maximum)(c, state, K(SQUARES), i), t = set_f64(c->t);
            store_f64(value[KLCE_score_varentropy] + i, squares / (all * t * t) + none);
        }
    }
    for (int i = 0; i < count; i++) {
        double best = state[FIELD(BEST) + i];
        double label = (double)*(const int64_t *)(call->arg[K(SCORE_TARGET)] +
                                                  (row + i) * call->step[K(SCORE_TARGET)]);
        value[KLCE_score_rank][i] = state[FIELD(RANK) + i];
        value[KLCE_score_argmax][i] = best;
        value[KLCE_score_greedy_match][i] = labels->counted[i] != 0 && best == label;
        if (WANTS(want, score_target_prob))
            value[KLCE_score_target_prob][i] =
                labels->counted[i] != 0
                    ? K(prob_of)(c, labels->value[i], step[i], mass[i], state + i)
                    : NAN;
    }
    K(put_statistics)(call, K(SCORE_NUMBERS), row, count, want, klce_score_statistics,
                      KLCE_SCORE_COUNT, value);
    for (ptrdiff_t i = 0; i < count; i++) {
        double max = state[FIELD(MAX) + i];
        const elem *x = K(row_in)(call, 0, row + i);
        for (ptrdiff_t j = 0; j < call->extent[K(SCORE_CANDIDATES)]; j++) {
            int64_t class = *K(integer_at)(call, K(SCORE_CANDIDATES), row + i, j);
            int inside = (uint64_t)class < (uint64_t)call->n;
            double own = inside ? K(value)(x[class]) : (double)NAN;
            if (!inside)
                K(meet_label)(call, KLCE_BAD_LABEL);
            *K(number_at)(call, K(SCORE_CANDIDATE_LOGS), row + i, j) =
                K(number)((own - max) / c->t - log[i]);
        }
        for (ptrdiff_t j = 0; j < call->extent[K(SCORE_TOP)]; j++) {
            real *own = K(number_at)(call, K(SCORE_TOP_LOGS), row + i, j);
            *own = K(number)(((double)*own - max) / c->t - log[i]);
        }
    }
}

KLCE_INLINE int K(score_seeks)(int64_t want)
{
    return WANTS(want, score_argmax) || WANTS(want, score_greedy_match);
}

static void K(score_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    int64_t want = K(wanted)(call, K(SCORE_WANT));
    K(labels) labels = {.value = {0}};
    K(read_at_labels)(call, row, count, &labels);
    for (int i = 0; i < count; i++) {
        const elem *x = K(row_in)(call, 0, row + i);
        if (WANTS(want, score_margin))
            K(add_second)(x, call->n, state + i, K(SECOND), K(BEST));
        if (K(score_seeks)(want))
            state[FIELD(BEST) + i] = (double)K(argmax)(x, call->n, state + i, K(BEST));
    }
    K(put_scores)(call, row, count, state, &labels);
}

/* The tops of a tile's rows, into the outputs as score_top leaves them. */
KLCE_INLINE void K(score_top_few)(const klce_call *call, ptrdiff_t row, const K(tile) *tile,
                                  const double *state)
{
    ptrdiff_t size = call->extent[K(SCORE_TOP)];
    K(top_lanes) top;
    real values[WIDTH], indices[WIDTH];
    if (size > TOP_FEW || K(has_nan_few)(state)) {
        for (int i = 0; i < KLCE_TILE; i++)
            K(score_top)(call, row + i, 0, call->n);
        return;
    }
    for (int w = 0; w < KLCE_TILE / WIDTH; w++) {
        K(top_of_columns)(tile->column[w], call->n, size, &top);
        for (ptrdiff_t j = 0; j < size; j++) {
            V(store)(values, top.value[j]);
            V(store)(indices, top.index[j]);
            for (int i = 0; i < WIDTH; i++) {
                *K(number_at)(call, K(SCORE_TOP_LOGS), row + w * WIDTH + i, j) = values[i];
                *K(integer_at)(call, K(SCORE_TOP), row + w * WIDTH + i, j) = (int64_t)indices[i];
            }
        }
    }
}

static void K(score_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE] = {0};
    int64_t want = K(wanted)(call, K(SCORE_WANT));
    K(labels) labels;
    K(tile) tile;
    int moments = K(score_moments)(call);
    if (moments)
        K(sum_exp_and_weighted_few)(call, 0, row, &tile, state);
    else
        K(sum_exp_few)(call, 0, row, &tile, state);
    if (moments > 1)
        K(sum_squares_few)(K(context)(call), &tile, call->n, state);
    K(read_at_labels)(call, row, KLCE_TILE, &labels);
    if (WANTS(want, score_rank)) {
        K(count_from_few)(&tile, call->n, labels.value, state + FIELD(RANK));
        for (int i = 0; i < KLCE_TILE; i++)
            state[FIELD(RANK) + i] *= labels.counted[i];
    }
    if (WANTS(want, score_margin))
        K(second_few)(&tile, call->n, state + FIELD(SECOND));
    if (K(score_seeks)(want))
        K(argmax_few)(&tile, call->n, state, state + FIELD(BEST));
    if (call->extent[K(SCORE_TOP)])
        K(score_top_few)(call, row, &tile, state);
    K(put_scores)(call, row, KLCE_TILE, state, &labels);
}

static const klce_kernel K(score_kernel) = {
    .prepare = K(score_prepare),
    .pass = {{K(score_sweep), SHARED(score_merge), K(score_finish)}},
    .few = TILE_OF(score_few),
};
