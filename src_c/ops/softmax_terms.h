/* softmax: exponentials, and what makes quotients of them; shared by rows of few classes, long rows
 * and rows side by side. */

/* Exponentials are boosted by 2^LIFT, and so are quotients that may be subnormal: those of
 * exponentials below LIFTED_SMALL.  What lies below LOWEST (in powers of two under the reference)
 * is 0 as a quotient.  A factor's low piece below NEGLIGIBLE of it is left out.  These are such
 * that no product goes subnormal, which would cost a hundred cycles. */
#if KLCE_REAL_IS_F64
#define LIFT 512
#define LOWEST (-1100)
#define UNLIFT 0x1p-512
#define ANCHOR 0x1p513     /* beyond the largest lifted exponential, 1.5 times 2^LIFT */
#define FEW_ANCHOR 0x1p520 /* and beyond FEW of them */
#define LIFTED_SMALL 0x1p-354
#define LIFTED_NORMAL 0x1p-510 /* 2^LIFT times the smallest normal number */
#define NEGLIGIBLE 0x1p-60
#define EXPONENT_SHIFT 52
#else
#define LIFT 78
#define LOWEST (-152)
#define UNLIFT 0x1p-78
#define ANCHOR 0x1p79f
#define FEW_ANCHOR 0x1p87f
#define LIFTED_SMALL 0x1p20f
#define LIFTED_NORMAL 0x1p-48f
#define NEGLIGIBLE 0x1p-31
#define EXPONENT_SHIFT 23
#endif

/* Beside MAX, ORIGIN and REF, which are those of expsum.h: the sum of all lifted exponentials; then
 * what makes of one of them 2^LIFT times its quotient, and what that is short of the exact
 * factor. */
enum { K(SUM) = K(REST), K(FACTOR) = K(REST), K(FACTOR_LOW) = K(WEIGHTED) };

/* exp((x - origin)/T) * 2^(LIFT - ref) as (1 + t) * scale, and as one number. */
KLCE_INLINE K(exp_pair) K(exp_lifted)(const K(expsum_context) *c, const K(measure) *from, K(v) x)
{
    return K(exp_pair_of)(&c->e, K(max)(from->floor, x - from->origin), from->magic);
}

/* `count` of them. */
KLCE_INLINE void K(exps_lifted)(const K(expsum_context) *c, const K(measure) *from, const K(v) *x,
                                K(exp_pair) *pair, int count)
{
    K(v) z[KLCE_BESIDE];
    KLCE_UNROLL for (int i = 0; i < count; i++) z[i] = K(max)(from->floor, x[i] - from->origin);
    K(exp_pairs)(&c->e, z, from->magic, pair, count);
}

KLCE_INLINE K(v) K(joined)(K(exp_pair) e) { return K(fma)(e.t, e.scale, e.scale); }

/* sum + lost += e, where sum starts at ANCHOR: it exceeds every exponential, so that `gained` is
 * exact (Dekker's fast two-sum), and e's own rounding goes to `lost` with that of the sum. */
KLCE_INLINE void K(add_exp)(K(exp_pair) e, K(v) joined, K(v) *sum, K(v) *lost)
{
    K(v) next = *sum + joined, gained = next - *sum;
    *lost = *lost + K(fma)(e.t, e.scale, e.scale - gained);
    *sum = next;
}

/* Of rows of few classes: e's multiple of FEW_ANCHOR's last place, and the rest.  FEW of the former
 * are less than 2^24 (2^53) such places, so that they add up exactly, in whatever order. */
KLCE_INLINE void K(split_exp)(K(exp_pair) e, K(v) joined, K(v) *whole, K(v) *rest)
{
    *whole = (joined + K(set)(FEW_ANCHOR)) - K(set)(FEW_ANCHOR);
    *rest = K(fma)(e.t, e.scale, e.scale - *whole);
}

KLCE_INLINE K(measure) K(lifted_from)(const klce_call *call, const double *state)
{
    return K(measure_from)(K(context)(call), (real)state[FIELD(ORIGIN)], (real)state[FIELD(REF)],
                           LIFT, LOWEST);
}

/* nan where the maximum is infinite. */
static void K(softmax_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    (void)call, (void)row;
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i), one = set_f64(1);
        v_f64 sum = K(state)(state, K(SUM), i) * set_f64(UNLIFT);
        v_f64 factor = one / sum + (max - max);
        v_f64 low = KLCE_FMA ? fma_f64(-factor, sum, one) * factor : set_f64(0);
        store_f64(state + FIELD(FACTOR) + i, factor);
        store_f64(state + FIELD(FACTOR_LOW) + i, low);
    }
}

/* What lifted exponentials are multiplied by, for quotients as they are and for lifted ones.  The
 * rounding of a factor would cost a unit at places, so it comes in two pieces for an FMA; without
 * one, a float32 product goes through float64. */
typedef struct {
    K(v) high, low, limit; /* no quotient exceeds 1, whatever rounding says */
#if !KLCE_FMA && !KLCE_REAL_IS_F64
    v_f64 wide[2]; /* for the low and the high half of the lanes */
#endif
} K(factor);

/* The factors of WIDTH rows, as doubles: `full`, and what it is short of. */
KLCE_INLINE K(factor) K(factor_of)(const v_f64 *full, const v_f64 *rest, double lift)
{
    K(factor) factor;
    v_f64 wide[HALVES], left[HALVES];
    KLCE_UNROLL for (int h = 0; h < HALVES; h++)
    {
        wide[h] = full[h] * set_f64(lift);
        left[h] = rest[h] * set_f64(lift);
    }
    K(split_halves)(wide, left, &factor.high, &factor.low);
    K(v) size = K(max)(factor.low, -factor.low), least = factor.high * K(set)((real)NEGLIGIBLE);
    factor.low = K(select)(K(lt)(size, least), K(set)(0), factor.low);
    factor.limit = K(set)((real)(lift / UNLIFT));
#if !KLCE_FMA && !KLCE_REAL_IS_F64
    factor.wide[0] = wide[0];
    factor.wide[1] = wide[HALVES - 1];
#endif
    return factor;
}

KLCE_INLINE K(v) K(times)(K(v) e, const K(factor) *factor)
{
    K(v) product;
#if KLCE_FMA
    product = K(fma)(e, factor->high, e * factor->low);
#elif KLCE_REAL_IS_F64
    product = e * factor->high;
#else
    product = narrow(widen_low(e) * factor->wide[0], widen_high(e) * factor->wide[1]);
#endif
    return K(min)(factor->limit, product); /* nan comes through */
}

/* The quotient from 2^LIFT times it.  A normal one gets its exponent back.  Below, adding 2^-48 (in
 * float32) rounds it at the place where the smallest subnormal number stands, and the integer
 * difference is that number's bits. */
KLCE_INLINE K(v) K(unlifted)(K(v) y)
{
    K(v) normal = K(set)(LIFTED_NORMAL);
    K(b) small = K(to_bits)(y + normal) - K(to_bits)(normal);
    K(b) large = K(to_bits)(y) - K(set_bits)((K(bits_scalar))LIFT << EXPONENT_SHIFT);
    K(v) result = K(select)(K(lt)(y, normal), K(from_bits)(small), K(from_bits)(large));
    return K(select)(K(eq)(y, y), result, y);
}

/* What the exponentials of a row are multiplied by. */
typedef struct {
    K(factor) plain, lifted;
} K(row_factors);

/* Of a row's state after `finish`. */
KLCE_INLINE K(row_factors) K(row_factors_of)(const double *state)
{
    v_f64 full[HALVES], rest[HALVES];
    KLCE_UNROLL for (int h = 0; h < HALVES; h++)
    {
        full[h] = set_f64(state[FIELD(FACTOR)]);
        rest[h] = set_f64(state[FIELD(FACTOR_LOW)]);
    }
    return (K(row_factors)){K(factor_of)(full, rest, UNLIFT), K(factor_of)(full, rest, 1)};
}

/* A group's exponentials become their quotients. */
KLCE_INLINE void K(divide_group)(const K(row_factors) *factors, K(v) *group)
{
    K(v) small = K(set)(LIFTED_SMALL), least = small;
    EACH_VECTOR(v) least = K(min)(group[v], least);
    if (K(any)(K(lt)(least, small)))
        EACH_VECTOR(v) group[v] = K(unlifted)(K(times)(group[v], &factors->lifted));
    else
        EACH_VECTOR(v) group[v] = K(times)(group[v], &factors->plain);
}

/* The factors of WIDTH rows side by side, from their states after `finish`. */
KLCE_INLINE K(row_factors) K(column_factors_of)(const double *state)
{
    v_f64 full[HALVES], rest[HALVES];
    K(load_halves)(state + FIELD(FACTOR), full);
    K(load_halves)(state + FIELD(FACTOR_LOW), rest);
    return (K(row_factors)){K(factor_of)(full, rest, UNLIFT), K(factor_of)(full, rest, 1)};
}

/* Columns of exponentials become quotients. */
KLCE_INLINE void K(divide_columns)(const K(row_factors) *factors, K(v) *e, int count)
{
    K(v) small = K(set)(LIFTED_SMALL), least = small;
    KLCE_UNROLL for (int k = 0; k < count; k++) least = K(min)(e[k], least);
    if (K(any)(K(lt)(least, small)))
        KLCE_UNROLL for (int k = 0; k < count; k++) e[k] =
            K(unlifted)(K(times)(e[k], &factors->lifted));
    else
        KLCE_UNROLL for (int k = 0; k < count; k++) e[k] = K(times)(e[k], &factors->plain);
}
