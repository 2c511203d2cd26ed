/* softmax: one sweep for the sum, a second over the row (then in cache) for the quotients. */

static void K(softmax_prepare)(klce_call *call)
{
    K(expsum_prepare)(call, *(const double *)call->arg[1]);
}

static void K(softmax_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                    ptrdiff_t high, double *state)
{
    K(sum_exp_and_min)(K(context)(call), K(row_in)(call, 0, row) + low, high - low, state);
}

static void K(softmax_merge)(const klce_call *call, ptrdiff_t row, double *into,
                                    const double *from)
{
    (void)row;
    K(expsum_merge_state)(call, into, from, 0, 1);
}

/* REST becomes the factor that takes an exponential measured from the reference to its quotient;
 * nan where the maximum is infinite. */
static void K(softmax_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                     double *state)
{
    (void)row;
    EACH_STATE(i, count)
    {
        const K(expsum_context) *c = K(context)(call);
        v_f64 max = K(state)(state, K(MAX), i), one = set_f64(1);
        v_f64 factor = K(to_maximum)(c, state, i) / (one + K(rest_of)(c, state, i));
        factor = factor + (max - max); /* inf - inf is nan */
        store_f64(state + K(REST) * KLCE_TILE + i, factor);
    }
}

/* What the results of a softmax are multiplied by while they may be subnormal. */
#if KLCE_REAL_IS_F64
#define LIFT 512
#define LIFTED_NORMAL 0x1p-510 /* 2^LIFT times the smallest normal number */
#define EXPONENT_SHIFT 52
#define SPREAD 600 /* nats below the maximum down to which quotients stay normal */
#else
#define LIFT 64
#define LIFTED_NORMAL 0x1p-62f
#define EXPONENT_SHIFT 23
#define SPREAD 60
#endif

/* The quotient of a group: 16 instructions a vector, 5 more if some may be subnormal.  In float32
 * the factor comes in two pieces, since its rounding alone would cost a unit at places. */
KLCE_INLINE void K(softmax_group)(const K(expsum_context) * c, const K(measure) * from,
                                  K(v) factor, K(v) factor_low, int lifted, K(v) * x)
{
    EACH_VECTOR(v)
    {
        K(v) z = K(max)(from->floor, x[v] - from->origin);
        K(exp_parts) parts = K(exp_reduce)(&c->e, z, from->magic);
        K(v) p = K(exp_mantissa)(&c->e, parts.r);
        K(v) y = K(fma)(p, factor, p * factor_low) * parts.scale;
        if (lifted) {
            /* y is 2^LIFT times the quotient.  A normal one gets its exponent back.  Below, adding
             * 2^-62 (in float32) rounds y at the place where the smallest subnormal number
             * stands, and the integer difference is that number's bits: no multiplication has a
             * subnormal result, which would cost a hundred cycles. */
            K(v) normal = K(set)(LIFTED_NORMAL);
            K(b) small = K(to_bits)(y + normal) - K(to_bits)(normal);
            K(b) large = K(to_bits)(y) - K(set_bits)((K(bits_scalar))LIFT << EXPONENT_SHIFT);
            y = K(select)(K(lt)(y, normal), K(from_bits)(small), K(from_bits)(large));
            /* nan has lost its bits to the subtraction. */
            y = y + (factor - factor);
        }
        x[v] = y;
    }
}

static void K(softmax_emit)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                   ptrdiff_t high, double *state)
{
    const K(expsum_context) *c = K(context)(call);
    const real *x = K(row_in)(call, 0, row);
    real *y = K(row_out)(call, 2, row);
    double factor = state[K(REST) * KLCE_TILE];
    double spread = state[K(MAX) * KLCE_TILE] - state[K(MIN) * KLCE_TILE];
    int lifted = !(spread <= SPREAD * c->t);
    K(measure) from = K(measure_from)(c, (real)state[K(ORIGIN) * KLCE_TILE],
                                      (real)state[K(REF) * KLCE_TILE], lifted ? LIFT : 0);
    K(v) group[VECTORS];
    K(v) high_part = K(set)((real)factor), low_part = K(set)((real)(factor - (real)factor));
    ptrdiff_t i = low;
    if (lifted) {
        for (; i < high; i += LANES) {
            K(load_group)(x + i, high - i, 0, group);
            K(softmax_group)(c, &from, high_part, low_part, 1, group);
            K(store_group)(y + i, high - i, group);
        }
    } else {
        for (; i < high; i += LANES) {
            K(load_group)(x + i, high - i, 0, group);
            K(softmax_group)(c, &from, high_part, low_part, 0, group);
            K(store_group)(y + i, high - i, group);
        }
    }
}

static void K(softmax_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(drive)(call, low, high, K(softmax_sweep), K(softmax_merge), K(softmax_finish),
             K(softmax_emit), NULL, NULL);
}

static const klce_kernel K(softmax_kernel) = {
    .prepare = K(softmax_prepare),
    .rows = K(softmax_rows),
    .pass = {{K(softmax_sweep), K(softmax_merge), K(softmax_finish)}, {K(softmax_emit), NULL, NULL}},
};
