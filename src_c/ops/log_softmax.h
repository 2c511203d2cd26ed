/* log_softmax: (x - max)/T - log1p(rest), which share a sign, so that nothing cancels. */

static void K(log_softmax_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                 ptrdiff_t high, double *state)
{
    K(sum_exp)(K(context)(call), K(row_in)(call, 0, row) + low, high - low, state);
}

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

/* d/T - log; -inf where d is.  `careful` serves vectors with a log below SLIGHT, which no product
 * must meet: a subnormal number there costs a hundred cycles. */
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

static void K(log_softmax_emit)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                                double *state)
{
    const elem *x = K(row_in)(call, 0, row);
    elem *y = K(row_out)(call, 2, row);
    K(v) max = K(set)((real)state[FIELD(MAX)]);
    K(v) log = K(set)((real)state[FIELD(REST)]);
    K(inverse) inverse = K(inverse_of)(1 / K(context)(call)->t);
    K(v) group[VECTORS];
    int careful = state[FIELD(REST)] < SLIGHT;
    for (ptrdiff_t i = low; i < high; i += LANES) {
        K(prefetch_stored)(y + i);
        K(load_group)(x + i, high - i, 0, group);
        if (careful)
            EACH_VECTOR(v) group[v] = K(scaled_less)(group[v] - max, inverse, log, 1);
        else
            EACH_VECTOR(v) group[v] = K(scaled_less)(group[v] - max, inverse, log, 0);
        K(store_group)(y + i, high - i, group);
    }
}

static void K(log_softmax_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(inverse) inverse = K(inverse_of)(1 / K(context)(call)->t);
    K(tile) tile;
    K(prefetch_tile)(call, 2, row);
    K(sum_exp_few)(call, 0, row, &tile, state);
    K(log_softmax_finish)(call, row, KLCE_TILE, state);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        K(v) max = K(load_field)(state + FIELD(MAX) + i);
        K(v) log = K(load_field)(state + FIELD(REST) + i);
        K(v) *x = tile.column[i / WIDTH];
        int careful = K(any)(K(lt)(log, K(set)(SLIGHT)));
        for (ptrdiff_t j = 0; j < call->n; j++)
            x[j] = careful ? K(scaled_less)(x[j] - max, inverse, log, 1)
                           : K(scaled_less)(x[j] - max, inverse, log, 0);
        K(store_columns)(call, 2, row + i, x);
    }
}

static const klce_kernel K(log_softmax_kernel) = {
    .prepare = K(temperature_prepare),
    .pass = {{K(log_softmax_sweep), SHARED(expsum_merge), SHARED(log_softmax_finish)},
             {K(log_softmax_emit), NULL, NULL}},
    .few = TILE_OF(log_softmax_few),
};

#undef SLIGHT
