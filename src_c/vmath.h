/* exp and log for the kernels, over the vocabulary of simd.h.  Coefficients: tools/minimax.py.
 *
 * exp.  exp(z/T) = p(r) * 2^n with n = round(z*log2e/T) and r = z - n*(T*ln2), |r| <= T*ln2/2: the
 * temperature is folded into the constants, so that z/T is never rounded.  n comes out as an
 * integer, and callers measure it from the n of the row's maximum: exact, where the subtraction
 * z - max would round and cost the tail of a softmax tens of ULP.
 *
 * log.  x = 2^k (1 + f), f in [sqrt(1/2) - 1, sqrt(2) - 1]; everything rests on the tail
 * f - log1p(f), computed to a few ULP of itself, which is also what KL divergence sums.
 */

typedef struct {
    float log2e, ln2_hi, ln2_mid, ln2_lo; /* log2(e)/T and T*ln2 in pieces */
    float c1_head, c1_low, tail;          /* 1/T in two; the last piece of ln2, no T in it */
    float c1, c2, c3, c4, c5, c6;         /* p(r) = 1 + c1 r + ... + c6 r^6, c_k over T^k */
} exp_constants_f32;

typedef struct {
    double log2e, ln2_hi, ln2_mid, ln2_lo;
    double c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11;
} exp_constants_f64;

/* n (10 bits in float32, 13 in float64) times ln2_hi is exact, since that keeps 13 or 38 bits, and
 * so is its difference to z.  With an FMA a second piece of full width does for the rest; without,
 * that is cut as well and followed by a third. */
KLCE_INLINE exp_constants_f32 exp_constants_of_f32(double t)
{
    double ln2 = t * 0x1.62e42fefa39efp-1, i = 1 / t;
    double i2 = i * i, i3 = i2 * i;
    exp_constants_f32 e = {.log2e = (float)(0x1.71547652b82fep+0 * i),
                           .c1 = (float)i,
                           .c2 = (float)(0.4999999341 * i2),
                           .c3 = (float)(0.1666652011 * i3),
                           .c4 = (float)(0.04166839421 * i2 * i2),
                           .c5 = (float)(0.008368780411 * i3 * i2),
                           .c6 = (float)(0.001381446706 * i3 * i3)};
    e.ln2_hi = (float)ln2;
    int32_t bits;
    memcpy(&bits, &e.ln2_hi, sizeof bits);
    bits &= ~0x7ff;
    memcpy(&e.ln2_hi, &bits, sizeof bits);
    e.ln2_mid = (float)(ln2 - e.ln2_hi);
#if !KLCE_FMA
    memcpy(&bits, &e.ln2_mid, sizeof bits);
    bits &= ~0x7ff;
    memcpy(&e.ln2_mid, &bits, sizeof bits);
#endif
    e.ln2_lo = (float)(ln2 - e.ln2_hi - e.ln2_mid);
    e.c1_head = e.c1;
#if !KLCE_FMA
    memcpy(&bits, &e.c1_head, sizeof bits);
    bits &= ~0xfff;
    memcpy(&e.c1_head, &bits, sizeof bits);
#endif
    e.c1_low = (float)(i - e.c1_head);
    e.tail = (float)(i * (KLCE_FMA ? e.ln2_mid : e.ln2_lo));
    return e;
}

KLCE_INLINE exp_constants_f64 exp_constants_of_f64(double t)
{
    double hi = t * 0x1.62e42fefa39efp-1, i = 1 / t;
    double low = fma(t, 0x1.62e42fefa39efp-1, -hi) + t * 0x1.abc9e3b39803fp-56;
    double i2 = i * i, i3 = i2 * i, i4 = i2 * i2;
    exp_constants_f64 e = {.log2e = 0x1.71547652b82fep+0 * i,
                           .c1 = i,
                           .c2 = 0.500000000000001072 * i2,
                           .c3 = 0.166666666666664102 * i3,
                           .c4 = 0.0416666666665291886 * i4,
                           .c5 = 0.00833333333349562379 * i4 * i,
                           .c6 = 0.00138888889439226396 * i4 * i2,
                           .c7 = 0.000198412695047653564 * i4 * i3,
                           .c8 = 0.0000248014927627956474 * i4 * i4,
                           .c9 = 2.75575873422038184e-6 * i4 * i4 * i,
                           .c10 = 2.76303786208051803e-7 * i4 * i4 * i2,
                           .c11 = 2.49999653432559226e-8 * i4 * i4 * i3};
    e.ln2_hi = hi;
    int64_t bits;
    memcpy(&bits, &e.ln2_hi, sizeof bits);
    bits &= ~(int64_t)0x7fff;
    memcpy(&e.ln2_hi, &bits, sizeof bits);
    double rest = (hi - e.ln2_hi) + low;
    e.ln2_mid = rest;
#if !KLCE_FMA
    memcpy(&bits, &e.ln2_mid, sizeof bits);
    bits &= ~(int64_t)0x7fff;
    memcpy(&e.ln2_mid, &bits, sizeof bits);
#endif
    e.ln2_lo = (rest - e.ln2_mid) + (e.ln2_mid == rest ? (hi - e.ln2_hi - rest) + low : 0);
    return e;
}

/* Adding 1.5 * 2^23 (2^52) leaves an integer in the low bits of the sum.  With a bias b in the
 * magic number those bits hold n + b, which shifted into the exponent field is 2^(n + b - 127):
 * one shift for the scale, no integer arithmetic. */
#define KLCE_MAGIC_f32 0x1.8p23f
#define KLCE_MAGIC_f64 0x1.8p52
#define KLCE_BIAS_f32 127
#define KLCE_BIAS_f64 1023

typedef struct {
    v_f32 r, scale; /* the reduced argument, and 2^(n + bias of the magic number) */
} exp_parts_f32;
typedef struct {
    v_f64 r, scale;
} exp_parts_f64;

/* n + b must stay within the normal exponents: the callers clamp z.  5 instructions. */
KLCE_INLINE exp_parts_f32 exp_reduce_f32(const exp_constants_f32 *e, v_f32 z, v_f32 magic)
{
    v_f32 t = fma_f32(z, set_f32(e->log2e), magic);
    v_f32 n = t - magic;
    v_f32 r = fma_f32(n, -set_f32(e->ln2_hi), z);
    r = fma_f32(n, -set_f32(e->ln2_mid), r);
#if !KLCE_FMA
    r = fma_f32(n, -set_f32(e->ln2_lo), r);
#endif
    return (exp_parts_f32){r, from_bits_f32(shift_to_exponent_f32(to_bits_f32(t)))};
}

KLCE_INLINE exp_parts_f64 exp_reduce_f64(const exp_constants_f64 *e, v_f64 z, v_f64 magic)
{
    v_f64 t = fma_f64(z, set_f64(e->log2e), magic);
    v_f64 n = t - magic;
    v_f64 r = fma_f64(n, -set_f64(e->ln2_hi), z);
    r = fma_f64(n, -set_f64(e->ln2_mid), r);
#if !KLCE_FMA
    r = fma_f64(n, -set_f64(e->ln2_lo), r);
#endif
    return (exp_parts_f64){r, from_bits_f64(shift_to_exponent_f64(to_bits_f64(t)))};
}

/* (exp(r/T) - 1 - r/T) / r^2, to 2^-27.8 (2^-56.5) of exp(r/T). */
KLCE_INLINE v_f32 exp_poly_f32(const exp_constants_f32 *e, v_f32 r)
{
    v_f32 q = fma_f32(set_f32(e->c6), r, set_f32(e->c5));
    q = fma_f32(q, r, set_f32(e->c4));
    q = fma_f32(q, r, set_f32(e->c3));
    return fma_f32(q, r, set_f32(e->c2));
}

KLCE_INLINE v_f64 exp_poly_f64(const exp_constants_f64 *e, v_f64 r)
{
    v_f64 q = fma_f64(set_f64(e->c11), r, set_f64(e->c10));
    q = fma_f64(q, r, set_f64(e->c9));
    q = fma_f64(q, r, set_f64(e->c8));
    q = fma_f64(q, r, set_f64(e->c7));
    q = fma_f64(q, r, set_f64(e->c6));
    q = fma_f64(q, r, set_f64(e->c5));
    q = fma_f64(q, r, set_f64(e->c4));
    q = fma_f64(q, r, set_f64(e->c3));
    return fma_f64(q, r, set_f64(e->c2));
}

/* exp(r/T), 2 instructions more. */
KLCE_INLINE v_f32 exp_mantissa_f32(const exp_constants_f32 *e, v_f32 r)
{
    return fma_f32(fma_f32(exp_poly_f32(e, r), r, set_f32(e->c1)), r, set_f32(1));
}

KLCE_INLINE v_f64 exp_mantissa_f64(const exp_constants_f64 *e, v_f64 r)
{
    return fma_f64(fma_f64(exp_poly_f64(e, r), r, set_f64(e->c1)), r, set_f64(1));
}

/* exp(r/T) - 1, as many. */
KLCE_INLINE v_f32 exp_tail_f32(const exp_constants_f32 *e, v_f32 r)
{
    return fma_f32(exp_poly_f32(e, r), r, set_f32(e->c1)) * r;
}

KLCE_INLINE v_f64 exp_tail_f64(const exp_constants_f64 *e, v_f64 r)
{
    return fma_f64(exp_poly_f64(e, r), r, set_f64(e->c1)) * r;
}

/* exp(z/T) as (1 + t) * scale, `count` of them step by step side by side: in the order of a chain's
 * steps, the next vector's wait for places in the processor's queues while the first one's wait for
 * one another.  To the bits of exp_reduce and exp_tail; the coefficients, highest first. */
#define KLCE_EXP_TAILS(R, real, ...)                                                               \
    KLCE_INLINE void exp_tails_##R(const exp_constants_##R *e, const v_##R *z, v_##R magic,        \
                                   v_##R *t, v_##R *scale, int count)                              \
    {                                                                                              \
        const real c[] = {__VA_ARGS__};                                                            \
        enum { DEGREE = sizeof c / sizeof *c - 1 };                                                \
        v_##R r[KLCE_BESIDE];                                                                      \
        KLCE_UNROLL for (int i = 0; i < count; i++)                                                \
        {                                                                                          \
            exp_parts_##R parts = exp_reduce_##R(e, z[i], magic);                                  \
            r[i] = parts.r;                                                                        \
            scale[i] = parts.scale;                                                                \
            t[i] = set_##R(c[0]);                                                                  \
        }                                                                                          \
        KLCE_UNROLL for (int k = 1; k <= DEGREE; k++) KLCE_UNROLL for (int i = 0; i < count; i++)  \
            t[i] = fma_##R(t[i], r[i], set_##R(c[k]));                                             \
        KLCE_UNROLL for (int i = 0; i < count; i++) t[i] = t[i] * r[i];                            \
    }
KLCE_EXP_TAILS(f32, float, e->c6, e->c5, e->c4, e->c3, e->c2, e->c1)
KLCE_EXP_TAILS(f64, double, e->c11, e->c10, e->c9, e->c8, e->c7, e->c6, e->c5, e->c4, e->c3, e->c2,
               e->c1)
#undef KLCE_EXP_TAILS

/* exp(r/T) - 1 and the scale, apart: for sums and quotients that must be right to 2 ULP.  float32
 * needs care, and 2 instructions more than exp_reduce and the mantissa: of the reduced argument
 * only the exact difference before the last piece of ln2 enters at the weight of 1/T; the rounded r
 * serves where 1/16 of its error is left. */
typedef struct {
    v_f32 t, scale;
} exp_pair_f32;
typedef struct {
    v_f64 t, scale;
} exp_pair_f64;

KLCE_INLINE exp_pair_f32 exp_pair_of_f32(const exp_constants_f32 *e, v_f32 z, v_f32 magic)
{
    v_f32 shifted = fma_f32(z, set_f32(e->log2e), magic), n = shifted - magic;
    v_f32 exact = fma_f32(n, -set_f32(e->ln2_hi), z);
#if KLCE_FMA
    v_f32 r = fma_f32(n, -set_f32(e->ln2_mid), exact);
#else
    exact = fma_f32(n, -set_f32(e->ln2_mid), exact);
    v_f32 r = fma_f32(n, -set_f32(e->ln2_lo), exact);
#endif
    v_f32 q = fma_f32(exp_poly_f32(e, r), r, set_f32(e->c1_low));
    q = fma_f32(q, r, n * -set_f32(e->tail));
#if !KLCE_FMA /* 12 bits times 12 bits is exact */
    v_f32 head = from_bits_f32(to_bits_f32(exact) & set_bits_f32(~0xfff));
    q = q + (exact - head) * set_f32(e->c1_head);
    exact = head;
#endif
    return (exp_pair_f32){fma_f32(exact, set_f32(e->c1_head), q),
                          from_bits_f32(shift_to_exponent_f32(to_bits_f32(shifted)))};
}

KLCE_INLINE exp_pair_f64 exp_pair_of_f64(const exp_constants_f64 *e, v_f64 z, v_f64 magic)
{
    exp_parts_f64 parts = exp_reduce_f64(e, z, magic);
    return (exp_pair_f64){exp_tail_f64(e, parts.r), parts.scale};
}

/* `count` of them: in float64 side by side, see exp_tails; float32 gained nothing by it. */
KLCE_INLINE void exp_pairs_f32(const exp_constants_f32 *e, const v_f32 *z, v_f32 magic,
                               exp_pair_f32 *pair, int count)
{
    KLCE_UNROLL for (int i = 0; i < count; i++) pair[i] = exp_pair_of_f32(e, z[i], magic);
}

KLCE_INLINE void exp_pairs_f64(const exp_constants_f64 *e, const v_f64 *z, v_f64 magic,
                               exp_pair_f64 *pair, int count)
{
    v_f64 t[KLCE_BESIDE], scale[KLCE_BESIDE];
    exp_tails_f64(e, z, magic, t, scale, count);
    KLCE_UNROLL for (int i = 0; i < count; i++) pair[i] = (exp_pair_f64){t[i], scale[i]};
}

/* exp(z/T) in full, 0 below the normal numbers and inf above: for the few values of a row's
 * state.  By (exp(r/T) - 1 - r/T) / r^2 as `poly` has it. */
typedef v_f64 (*exp_poly)(const exp_constants_f64 *, v_f64 r);

KLCE_INLINE v_f64 exp_by(const exp_constants_f64 *e, v_f64 z, double t, exp_poly poly)
{
    v_f64 low = set_f64(-708 * t), high = set_f64(709 * t);
    v_f64 inside = min_f64(high, max_f64(low, z));
    exp_parts_f64 parts = exp_reduce_f64(e, inside, set_f64(KLCE_MAGIC_f64 + 1023));
    v_f64 mantissa =
        fma_f64(fma_f64(poly(e, parts.r), parts.r, set_f64(e->c1)), parts.r, set_f64(1));
    v_f64 y = mantissa * parts.scale;
    y = select_f64(lt_f64(z, low), set_f64(0), y);
    return select_f64(lt_f64(high, z), set_f64(INFINITY), y);
}

KLCE_INLINE v_f64 exp_f64(const exp_constants_f64 *e, v_f64 z, double t)
{
    return exp_by(e, z, t, exp_poly_f64);
}

/* The polynomial of c[0] to c[degree], lowest power first, by its even and its odd powers: as many
 * instructions as one chain takes, where the square is there anyway, and half as long a wait. */
#define KLCE_SERIES(R, real)                                                                       \
    KLCE_INLINE v_##R series_##R(const real *c, int degree, v_##R x, v_##R square)                 \
    {                                                                                              \
        v_##R sum[2] = {set_##R(c[degree]), set_##R(c[degree - 1])};                               \
        KLCE_UNROLL for (int k = degree - 2; k >= 0; k--)                                          \
        {                                                                                          \
            v_##R *own = &sum[(degree - k) & 1];                                                   \
            *own = fma_##R(*own, square, set_##R(c[k]));                                           \
        }                                                                                          \
        return fma_##R(sum[(degree + 1) & 1], x, sum[degree & 1]);                                 \
    }
KLCE_SERIES(f32, float)
KLCE_SERIES(f64, double)
#undef KLCE_SERIES

/* q, lowest power first, such that f - log1p(f) is f^2 (1/2 - f q(f)) to 2^-26 of itself. */
#define KLCE_LOG1P_SERIES                                                                          \
    0.3333332187, -0.2499998948, 0.2000152808, -0.1666883873, 0.1423126783, -0.1239512299,         \
        0.1179555145, -0.1171718742, 0.07007647224

/* f - log1p(f) for f in [sqrt(1/2) - 1, sqrt(2) - 1].  float32: by that series.  float64: by
 * s = f/(2 + f), whose odd series needs half the terms (as fdlibm does). */
KLCE_INLINE v_f32 log1p_tail_f32(v_f32 f)
{
    static const float c[] = {KLCE_LOG1P_SERIES};
    v_f32 square = f * f;
    return square * fma_f32(-f, series_f32(c, 8, f, square), set_f32(0.5f));
}

KLCE_INLINE v_f64 log1p_tail_f64(v_f64 f)
{
    v_f64 s = f / (set_f64(2) + f), z = s * s, half_square = set_f64(0.5) * f * f;
    v_f64 q = fma_f64(set_f64(0.147959497005693995), z, set_f64(0.153140505521141707));
    q = fma_f64(q, z, set_f64(0.181835643261196126));
    q = fma_f64(q, z, set_f64(0.222221985731845261));
    q = fma_f64(q, z, set_f64(0.285714287423876227));
    q = fma_f64(q, z, set_f64(0.399999999994146784));
    q = fma_f64(q, z, set_f64(0.666666666666673441));
    return half_square - s * fma_f64(q, z, half_square);
}

/* x = 2^k (1 + f) for normal x > 0.  A zero gives k = -127 (-1023) and f = 0. */
typedef struct {
    b_f32 k;
    v_f32 f;
} log_parts_f32;
typedef struct {
    b_f64 k;
    v_f64 f;
} log_parts_f64;

KLCE_INLINE log_parts_f32 log_reduce_f32(v_f32 x)
{
    b_f32 bits = to_bits_f32(x);
    b_f32 k = shift_from_exponent_f32(bits - set_bits_f32(0x3f3504f3)); /* sqrt(1/2) */
    return (log_parts_f32){k, from_bits_f32(bits - shift_to_exponent_f32(k)) - set_f32(1)};
}

KLCE_INLINE log_parts_f64 log_reduce_f64(v_f64 x)
{
    b_f64 bits = to_bits_f64(x);
    b_f64 k = shift_from_exponent_f64(bits - set_bits_f64(0x3fe6a09e667f3bcd));
    return (log_parts_f64){k, from_bits_f64(bits - shift_to_exponent_f64(k)) - set_f64(1)};
}

/* k such that x 2^-k is from 2/3 to 3/2 of y, of positive normal numbers: what rounds their bits'
 * difference, by which a mantissa counts as its logarithm.  No quotient is waited for. */
KLCE_INLINE b_f32 quotient_exponent_f32(v_f32 x, v_f32 y)
{
    return shift_from_exponent_f32(to_bits_f32(x) - to_bits_f32(y) + set_bits_f32(1 << 22));
}

KLCE_INLINE b_f64 quotient_exponent_f64(v_f64 x, v_f64 y)
{
    return shift_from_exponent_f64(to_bits_f64(x) - to_bits_f64(y) +
                                   set_bits_f64((int64_t)1 << 51));
}

/* log1p(f)/s - 2 for f in [-1/3, 1/2], of z = s^2, s = f/(2 + f): s times it is 2^-32 (2^-52) of
 * f - log1p(f) off. */
KLCE_INLINE v_f32 log1p_by_square_f32(v_f32 z)
{
    static const float c[] = {0.666666648f, 0.4000060521f, 0.2851805827f, 0.2395708127f};
    return z * series_f32(c, 3, z, z * z);
}

KLCE_INLINE v_f64 log1p_by_square_f64(v_f64 z)
{
    static const double c[] = {0.666666666666688236, 0.399999999980280358, 0.285714290957497483,
                               0.2222216065203119,   0.181855268159522231, 0.152654742134807657,
                               0.152579490577521221};
    return z * series_f64(c, 6, z, z * z);
}

/* ln2, and in two pieces, of which the first times any k is exact. */
#define KLCE_LN2_f32 0x1.62e43p-1f
#define KLCE_LN2_f64 0x1.62e42fefa39efp-1
#define KLCE_LN2_HIGH_f32 0.693359375f
#define KLCE_LN2_LOW_f32 (-2.12194440e-4f)
#define KLCE_LN2_HIGH_f64 6.93147180369123816490e-01
#define KLCE_LN2_LOW_f64 1.90821492927058770002e-10

/* k ln2 + log1p(f), the largest term last. */
KLCE_INLINE v_f32 log_join_f32(v_f32 k, v_f32 f)
{
    v_f32 rest = fma_f32(k, set_f32(KLCE_LN2_LOW_f32), -log1p_tail_f32(f));
    return fma_f32(k, set_f32(KLCE_LN2_HIGH_f32), rest + f);
}

KLCE_INLINE v_f64 log_join_f64(v_f64 k, v_f64 f)
{
    v_f64 rest = fma_f64(k, set_f64(KLCE_LN2_LOW_f64), -log1p_tail_f64(f));
    return fma_f64(k, set_f64(KLCE_LN2_HIGH_f64), rest + f);
}

/* The same of terms that are summed: with ln2 in one piece, which is 2^-28 (2^-54) of it off. */
KLCE_INLINE v_f32 log_join_term_f32(v_f32 k, v_f32 f)
{
    static const float c[] = {KLCE_LOG1P_SERIES};
    v_f32 square = f * f;
    v_f32 half = fma_f32(-f, series_f32(c, 8, f, square), set_f32(0.5f));
    return fma_f32(k, set_f32(KLCE_LN2_f32), fma_f32(-square, half, f));
}

KLCE_INLINE v_f64 log_join_term_f64(v_f64 k, v_f64 f)
{
    return fma_f64(k, set_f64(KLCE_LN2_f64), f - log1p_tail_f64(f));
}

/* log x for finite x > 0, normal, of terms that are summed; garbage, but finite, at 0. */
KLCE_INLINE v_f32 log_term_f32(v_f32 x)
{
    log_parts_f32 parts = log_reduce_f32(x);
    return log_join_term_f32(float_of_f32(parts.k), parts.f);
}

KLCE_INLINE v_f64 log_term_f64(v_f64 x)
{
    log_parts_f64 parts = log_reduce_f64(x);
    return log_join_term_f64(float_of_f64(parts.k), parts.f);
}

/* log x for any x: subnormals are scaled up first; -inf at 0, nan below, inf and nan kept. */
KLCE_INLINE v_f32 log_f32(v_f32 x)
{
    m_f32 small = lt_f32(x, set_f32(0x1p-126f));
    log_parts_f32 parts = log_reduce_f32(select_f32(small, x * set_f32(0x1p25f), x));
    v_f32 k = float_of_f32(parts.k) - select_f32(small, set_f32(25), set_f32(0));
    v_f32 y = log_join_f32(k, parts.f);
    y = select_f32(lt_f32(x, set_f32(INFINITY)), y, x);
    y = select_f32(eq_f32(x, set_f32(0)), set_f32(-INFINITY), y);
    return select_f32(lt_f32(x, set_f32(0)), set_f32(NAN), y);
}

KLCE_INLINE v_f64 log_f64(v_f64 x)
{
    m_f64 small = lt_f64(x, set_f64(0x1p-1022));
    log_parts_f64 parts = log_reduce_f64(select_f64(small, x * set_f64(0x1p54), x));
    v_f64 k = float_of_f64(parts.k) - select_f64(small, set_f64(54), set_f64(0));
    v_f64 y = log_join_f64(k, parts.f);
    y = select_f64(lt_f64(x, set_f64(INFINITY)), y, x);
    y = select_f64(eq_f64(x, set_f64(0)), set_f64(-INFINITY), y);
    return select_f64(lt_f64(x, set_f64(0)), set_f64(NAN), y);
}

/* log(1 + x) for x > -1, below 2^60: k from the rounded 1 + x, then f = x 2^-k + (2^-k - 1), whose
 * one rounding is of f itself; for k = 0 f is x. */
KLCE_INLINE v_f32 log1p_f32(v_f32 x)
{
    b_f32 k = log_reduce_f32(set_f32(1) + x).k;
    v_f32 down = from_bits_f32(shift_to_exponent_f32(set_bits_f32(127) - k));
    v_f32 f = fma_f32(x, down, down - set_f32(1));
    v_f32 y = log_join_f32(float_of_f32(k), f);
    return select_f32(eq_f32(x, x), y, x);
}

KLCE_INLINE v_f64 log1p_f64(v_f64 x)
{
    b_f64 k = log_reduce_f64(set_f64(1) + x).k;
    v_f64 down = from_bits_f64(shift_to_exponent_f64(set_bits_f64(1023) - k));
    v_f64 f = fma_f64(x, down, down - set_f64(1));
    v_f64 y = log_join_f64(float_of_f64(k), f);
    return select_f64(eq_f64(x, x), y, x);
}

/* log(1 + x + low), `low` at most some units of x: as log1p, less the rounding of f. */
KLCE_INLINE v_f64 log1p_pair_f64(v_f64 x, v_f64 low)
{
    b_f64 k = log_reduce_f64(set_f64(1) + x).k;
    v_f64 down = from_bits_f64(shift_to_exponent_f64(set_bits_f64(1023) - k));
    /* f and its rounding error (Knuth's two-sum), which becomes that of log1p(f). */
    v_f64 a = x * down, b = down - set_f64(1), f = a + b, c = f - a;
    v_f64 f_low = fma_f64(low, down, (a - (f - c)) + (b - c)) / (set_f64(1) + f);
    v_f64 n = float_of_f64(k);
    v_f64 rest = fma_f64(n, set_f64(KLCE_LN2_LOW_f64), f_low - log1p_tail_f64(f));
    v_f64 y = fma_f64(n, set_f64(KLCE_LN2_HIGH_f64), rest + f);
    return select_f64(eq_f64(x, x), y, x);
}

/* What the state of a row needs in float64 for a result of the given type.  For float32, 2^-28 will
 * do: exp's polynomial (|r/T| <= 0.35) stops at r^8, and the tail of log1p is that of float32, its
 * terms paired, since a row's last steps are one long chain. */
KLCE_INLINE v_f64 exp_poly_for_f64(const exp_constants_f64 *e, v_f64 r)
{
    return exp_poly_f64(e, r);
}
KLCE_INLINE v_f64 exp_for_f64(const exp_constants_f64 *e, v_f64 z, double t)
{
    return exp_f64(e, z, t);
}
KLCE_INLINE v_f64 log1p_for_f64(v_f64 x) { return log1p_f64(x); }

KLCE_INLINE v_f64 exp_poly_for_f32(const exp_constants_f64 *e, v_f64 r)
{
    v_f64 r2 = r * r, low = fma_f64(set_f64(e->c3), r, set_f64(e->c2));
    v_f64 mid = fma_f64(set_f64(e->c5), r, set_f64(e->c4));
    v_f64 high = fma_f64(set_f64(e->c7), r, set_f64(e->c6));
    high = fma_f64(set_f64(e->c8), r2, high);
    return fma_f64(fma_f64(high, r2, mid), r2, low);
}

KLCE_INLINE v_f64 exp_for_f32(const exp_constants_f64 *e, v_f64 z, double t)
{
    return exp_by(e, z, t, exp_poly_for_f32);
}

KLCE_INLINE v_f64 log1p_for_f32(v_f64 x)
{
    static const double c[] = {KLCE_LOG1P_SERIES};
    b_f64 k = log_reduce_f64(set_f64(1) + x).k;
    v_f64 down = from_bits_f64(shift_to_exponent_f64(set_bits_f64(1023) - k));
    v_f64 f = fma_f64(x, down, down - set_f64(1)), f2 = f * f, f4 = f2 * f2;
    v_f64 q01 = fma_f64(set_f64(c[1]), f, set_f64(c[0]));
    v_f64 q23 = fma_f64(set_f64(c[3]), f, set_f64(c[2]));
    v_f64 q45 = fma_f64(set_f64(c[5]), f, set_f64(c[4]));
    v_f64 q67 = fma_f64(set_f64(c[7]), f, set_f64(c[6]));
    v_f64 q = fma_f64(fma_f64(set_f64(c[8]), f4, fma_f64(q67, f2, q45)), f4, fma_f64(q23, f2, q01));
    v_f64 tail = f2 * fma_f64(-f, q, set_f64(0.5));
    v_f64 y = fma_f64(float_of_f64(k), set_f64(KLCE_LN2_f64), f - tail);
    return select_f64(eq_f64(x, x), y, x);
}

/* s - log1p(s) for s >= -1, to a few ULP of itself: inf at -1.  Of what rounding leaves, of 16-bit
 * probabilities too, which is below 2^-7, by the first terms of its series, to 2^-58 of itself:
 * rows of few classes are finished in the time of two divisions less. */
KLCE_INLINE v_f64 log1p_gap_f64(v_f64 s)
{
    static const double series[] = {1 / 2., -1 / 3., 1 / 4., -1 / 5.,
                                    1 / 6., -1 / 7., 1 / 8., -1 / 9.};
    v_f64 square = s * s, first = square * series_f64(series, 7, s, square);
    m_f64 slight = lt_f64(square, set_f64(0x1p-14));
    if (!any_f64(not_f64(slight)))
        return first;
    b_f64 k = log_reduce_f64(set_f64(1) + s).k;
    m_f64 near = eq_f64(float_of_f64(k), set_f64(0));
    v_f64 far = select_f64(eq_f64(s, set_f64(-1)), set_f64(INFINITY), s - log1p_f64(s));
    v_f64 gap = select_f64(near, log1p_tail_f64(select_f64(near, s, set_f64(0))), far);
    return select_f64(slight, first, gap);
}

/* sum += value, lost += what rounding took from it (Knuth's two-sum); of doubles or of vectors. */
#define ADD_KEEPING(type, sum, value, lost)                                                        \
    do {                                                                                           \
        type a_ = (sum), b_ = (value), s_ = a_ + b_, c_ = s_ - a_;                                 \
        (lost) = (lost) + ((a_ - (s_ - c_)) + (b_ - c_));                                          \
        (sum) = s_;                                                                                \
    } while (0)
