/* log_softmax: (x - max)/T - log1p(rest), which share a sign, so that nothing cancels. */

/* REST becomes the logarithm, nan where the maximum is infinite. */
static void K(log_softmax_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                  double *state)
{
    (void)row;
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i);
        v_f64 log = K(log_of_rest)(K(context)(call), state, i) + (max - max);
        store_f64(state + FIELD(REST) + i, log);
    }
}

/* 1/T in two pieces, since the rounding of one would cost a unit. */
typedef struct {
    K(v) high, low;
} K(inverse);

KLCE_INLINE K(inverse) K(inverse_of)(double inverse)
{
    real high = (real)inverse;
    return (K(inverse)){K(set)(high), K(set)((real)(inverse - high))};
}

/* Below, a logarithm may be subnormal, and shows at the maximum alone. */
#define SLIGHT (KLCE_REAL_IS_F64 ? (real)0x1p-900 : (real)0x1p-100)

/* How d/T - log is found.  At a temperature of 1 by that difference, the same bits.  SLIGHT_TOO is
 * for vectors with a log below SLIGHT, which no product must meet: a subnormal number there costs a
 * hundred cycles. */
typedef enum { K(DIFFERENCE), K(SCALED), K(SLIGHT_TOO) } K(less_kind);

KLCE_INLINE K(less_kind) K(kind_of_less)(double t, int has_slight)
{
    return t == 1 ? K(DIFFERENCE) : has_slight ? K(SLIGHT_TOO) : K(SCALED);
}

/* d/T - log; -inf where d is. */
KLCE_INLINE K(v) K(scaled_less)(K(v) d, K(inverse) inverse, K(v) log, int careful)
{
    K(v) zero = K(set)(0), less = log;
    K(m) plain = K(eq)(d, K(set)((real)-INFINITY));
    if (careful) {
        less = K(select)(K(lt)(log, K(set)(SLIGHT)), zero, log);
        plain = K(or)(plain, K(eq)(d, zero));
    }
    K(v) y = K(fma)(d, inverse.high, K(fma)(d, inverse.low, -less));
    return K(select)(plain, d - log, y);
}

/* At a temperature of 1, 4 instructions a vector: load, two subtractions, store; at others 8, and
 * with SLIGHT_TOO 10. */
static void K(log_softmax_emit)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                                double *state)
{
    const elem *x = K(row_in)(call, 0, row);
    elem *y = K(row_out)(call, 2, row);
    K(v) max = K(set)((real)state[FIELD(MAX)]);
    K(v) log = K(set)((real)state[FIELD(REST)]);
    K(inverse) inverse = K(inverse_of)(1 / K(context)(call)->t);
    K(v) group[VECTORS];
    K(less_kind) kind = K(kind_of_less)(K(context)(call)->t, state[FIELD(REST)] < SLIGHT);
    for (ptrdiff_t i = low; i < high; i += LANES) {
        K(prefetch_stored)(y + i);
        K(load_group)(x + i, high - i, 0, group);
        EACH_VECTOR(v) group[v] = group[v] - max;
        if (kind == K(DIFFERENCE))
            EACH_VECTOR(v) group[v] = group[v] - log;
        else if (kind == K(SCALED))
            EACH_VECTOR(v) group[v] = K(scaled_less)(group[v], inverse, log, 0);
        else
            EACH_VECTOR(v) group[v] = K(scaled_less)(group[v], inverse, log, 1);
        K(store_group)(y + i, high - i, group);
    }
}

/* Classes [low, high) of x, a row, while those of the row before are stored. */
static void K(log_softmax_sum)(const K(expsum_context) *c, const elem *x, ptrdiff_t low,
                               ptrdiff_t high, double *state, K(log_row) behind)
{
    if (behind.way == K(NO_ROW)) {
        K(sum_exp)(c, x + low, high - low, state);
        return;
    }
    behind.x += low;
    behind.y += low;
    behind.left -= low;
    if (behind.way == K(TO_CACHE))
        K(sum_exp_to_cache)(c, x + low, high - low, state, &behind);
    else
        K(sum_exp_past_caches)(c, x + low, high - low, state, &behind);
}

/* A row that is summed, to be stored along with the next one. */
KLCE_INLINE K(log_row) K(log_softmax_row)(const klce_call *call, ptrdiff_t row, const double *state)
{
    elem *y = K(row_out)(call, 2, row);
    ptrdiff_t before;
    K(row_way) way = K(row_way_of)(call, y, &before);
    K(log_row) own = {way,    K(row_in)(call, 0, row), y,
                      before, (real)state[FIELD(MAX)], (real)state[FIELD(REST)]};
    if (before)
        K(put_logs)(&own, 0, before, way);
    own.x += before;
    own.y += before;
    own.left = call->n - before;
    return own;
}

/* At a temperature of 1; rows at others are left to the passes. */
static ptrdiff_t K(log_softmax_pipelined)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    const K(expsum_context) *c = K(context)(call);
    double state[KLCE_FIELDS * KLCE_TILE] = {0}, part[KLCE_FIELDS * KLCE_TILE];
    K(log_row) behind = {.way = K(NO_ROW)};
    if (c->t != 1)
        return low;
    for (ptrdiff_t row = low; row < high; row++) {
        const elem *x = K(row_in)(call, 0, row);
        ptrdiff_t end = KLCE_LESSER(call->n, KLCE_SEGMENT);
        K(log_softmax_sum)(c, x, 0, end, state, behind);
        while (end < call->n) {
            ptrdiff_t start = end;
            end = KLCE_LESSER(call->n, start + KLCE_SEGMENT);
            K(log_softmax_sum)(c, x, start, end, part, behind);
            K(expsum_join)(c, state, part, 0);
        }
        K(log_softmax_finish)(call, row, 1, state);
        behind = K(log_softmax_row)(call, row, state);
    }
    K(put_logs_from)(0, behind.way, behind.x, behind.y, behind.left, behind.max, behind.log);
    streams_done();
    return high;
}

/* What turns columns of finished rows into logarithms. */
typedef struct {
    K(v) max, log;
    K(inverse) inverse;
    K(less_kind) kind;
} K(column_logs);

KLCE_INLINE K(column_logs) K(column_logs_of)(double t, const double *state)
{
    K(v) log = K(load_field)(state + FIELD(REST));
    return (K(column_logs)){K(load_field)(state + FIELD(MAX)), log, K(inverse_of)(1 / t),
                            K(kind_of_less)(t, K(any)(K(lt)(log, K(set)(SLIGHT))))};
}

KLCE_INLINE void K(log_columns)(const K(column_logs) *of, K(v) *x, int count)
{
    KLCE_UNROLL for (int k = 0; k < count; k++)
    {
        K(v) d = x[k] - of->max;
        x[k] = of->kind == K(DIFFERENCE) ? d - of->log
               : of->kind == K(SCALED)   ? K(scaled_less)(d, of->inverse, of->log, 0)
                                         : K(scaled_less)(d, of->inverse, of->log, 1);
    }
}

static void K(log_softmax_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(tile) tile;
    K(prefetch_tile)(call, 2, row);
    K(sum_exp_few)(call, 0, row, &tile, state);
    K(log_softmax_finish)(call, row, KLCE_TILE, state);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        const K(column_logs) logs = K(column_logs_of)(K(context)(call)->t, state + i);
        for (ptrdiff_t j = 0; j < call->n; j++)
            K(log_columns)(&logs, tile.column[i / WIDTH] + j, 1);
        K(store_columns)(call, 2, row + i, tile.column[i / WIDTH]);
    }
}

KLCE_INLINE void K(log_block)(K(blocks) *b, double t, K(abreast_states) *states)
{
    K(column_logs) logs[K(ABREAST_VECTORS)];
    for (int w = 0; w < K(ABREAST_VECTORS); w++)
        logs[w] = K(column_logs_of)(t, K(state_of_vector)(states, w));
    OVER_PANEL(b, K(log_columns), logs);
}

static ptrdiff_t K(log_softmax_abreast)(const klce_call *call, ptrdiff_t low, ptrdiff_t high,
                                        void *scratch)
{
    /* A copy, see softmax_sum. */
    const K(expsum_context) context = *K(context)(call);
    K(abreast_states) states;
    K(blocks) b;
    K(first_block)(&b, call, 2, low, high, scratch, 1);
    do {
        K(expsum_block)(&context, &b, &states, 0);
        K(finish_block)(&b, &states, K(log_softmax_finish));
        K(put_maxima)(&b, (const real *)b.max);
        K(log_block)(&b, context.t, &states);
    } while (K(next_block)(&b));
    return b.at;
}

static const klce_kernel K(log_softmax_kernel) = {
    .prepare = K(temperature_prepare),
    .pass = {{K(logsumexp_sweep), SHARED(expsum_merge), SHARED(log_softmax_finish)},
             {K(log_softmax_emit), NULL, NULL}},
    .few = TILE_OF(log_softmax_few),
    .pipelined = K(log_softmax_pipelined),
    .abreast = K(log_softmax_abreast),
    .most_abreast = BLOCK,
    .panels = 2,
};

#undef SLIGHT
