/* What exponentials are measured from, so that sums of them neither overflow nor lose a small rest.
 *
 * The reference is an integer n_ref (that of a maximum) taken from the exponent, after an origin
 * was subtracted.  The origin is 0 while |m/T| is small enough for the exponent of exp(x/T) itself;
 * beyond, it is m, and x - m is exact for every x within half of m, hence for all that matter.
 * Sums hold 2^BOOST times the exponentials, so that a rest down to the smallest subnormal number is
 * a normal one here; what lies below FLOOR (in powers of two under the reference) adds about
 * 2^(FLOOR + BOOST), less than any result can show. */
#if KLCE_REAL_IS_F64
#define BOOST 512
#define UNBOOST 0x1p-512
#define FLOOR (-1400)
#define DIRECT 4096 /* the largest |m/T| whose origin is 0 */
#else
#define BOOST 80
#define UNBOOST 0x1p-80
#define FLOOR (-188)
#define DIRECT 256
#endif

/* A call's constants: of the row's type, and in float64 for the states. */
typedef struct {
    K(exp_constants) e;
    exp_constants_f64 f;
    double t;
} K(expsum_context);

KLCE_INLINE void K(expsum_prepare)(klce_call *call, double temperature)
{
    K(expsum_context) context;
    context.e = K(exp_constants_of)(temperature);
    context.f = exp_constants_of_f64(temperature);
    context.t = temperature;
    _Static_assert(sizeof context <= sizeof call->context, "a call has room for the context");
    memcpy(call->context, &context, sizeof context);
}

/* Of ops that have no temperature. */
static void K(unit_prepare)(klce_call *call) { K(expsum_prepare)(call, 1); }

/* Of ops whose first parameter that is a float64 is the temperature. */
static void K(temperature_prepare)(klce_call *call)
{
    const char *signature = klce_op_signatures[call->op];
    K(expsum_prepare)(call, *(const double *)call->arg[strchr(signature, 'd') - signature]);
}

KLCE_INLINE const K(expsum_context) *K(context)(const klce_call *call)
{
    return (const K(expsum_context) *)call->context;
}

KLCE_INLINE void K(reference_of)(const K(expsum_context) *c, real m, real *origin, real *ref)
{
    real magic = K(KLCE_MAGIC);
    *origin = *ref = 0;
    if (!(fabs((double)m) < INFINITY))
        return;
    if ((m < 0 ? -m : m) > (real)(DIRECT * c->t))
        *origin = m;
    else
        *ref = (m * c->e.log2e + magic) - magic;
}

/* exp((x - origin)/T) * 2^(boost - ref), for z = x - origin clamped at the floor. */
typedef struct {
    K(v) origin, floor, magic;
} K(measure);

KLCE_INLINE K(measure)
    K(measure_of)(const K(expsum_context) *c, K(v) origin, K(v) ref, int boost, int floor)
{
    return (K(measure)){origin, (ref + K(set)(floor)) * K(set)(c->e.ln2_hi),
                        K(set)(K(KLCE_MAGIC) + (K(KLCE_BIAS) + boost)) - ref};
}

KLCE_INLINE K(measure)
    K(measure_from)(const K(expsum_context) *c, real origin, real ref, int boost, int floor)
{
    return K(measure_of)(c, K(set)(origin), K(set)(ref), boost, floor);
}

/* 12 instructions in float32 with the polynomial's constants in registers. */
KLCE_INLINE K(v) K(exp_measured)(const K(expsum_context) *c, const K(measure) *from, K(v) z)
{
    K(exp_parts) parts = K(exp_reduce)(&c->e, z, from->magic);
    return K(exp_mantissa)(&c->e, parts.r) * parts.scale;
}

/* The same by its tail, as a sum has it. */
KLCE_INLINE K(v) K(exp_by_tail)(const K(expsum_context) *c, const K(measure) *from, K(v) z)
{
    K(exp_parts) parts = K(exp_reduce)(&c->e, z, from->magic);
    return K(fma)(K(exp_tail)(&c->e, parts.r), parts.scale, parts.scale);
}

/* exp(z/T), of one number. */
static KLCE_NOINLINE double K(exp_of)(const K(expsum_context) *c, double z)
{
    return first_lane_f64(exp_f64(&c->f, set_f64(z), c->t));
}

/* exp((from - to)/T), `from` and `to` being origin/T + ref*ln2: what a sum is multiplied by to be
 * measured from another reference.  Between equal origins a power of two. */
KLCE_INLINE double K(rescale)(const K(expsum_context) *c, double from_origin, double from_ref,
                              double to_origin, double to_ref)
{
    double step = from_ref - to_ref;
    if (from_origin == to_origin)
        return step < -1022 ? 0 : ldexp(1, (int)step); /* never a subnormal number */
    return K(exp_of)(c, fma(step, c->f.ln2_hi, from_origin - to_origin) + step * c->f.ln2_mid);
}

/* The references of WIDTH rows, by their maxima: as reference_of and measure_from, lane by lane. */
typedef struct {
    K(v) origin, ref;
    K(measure) from;
} K(references);

KLCE_INLINE K(references)
    K(references_of)(const K(expsum_context) *c, K(v) max, int boost, int floor)
{
    K(v) size = K(max)(max, -max), zero = K(set)(0);
    K(m) finite = K(lt)(size, K(set)((real)INFINITY));
    K(m) large = K(lt)(K(set)((real)(DIRECT * c->t)), size);
    K(v) magic = K(set)(K(KLCE_MAGIC));
    K(v) ref = (max * K(set)(c->e.log2e) + magic) - magic;
    K(references) r;
    r.origin = K(select)(finite, K(select)(large, max, zero), zero);
    r.ref = K(select)(finite, K(select)(large, zero, ref), zero);
    r.from = K(measure_of)(c, r.origin, r.ref, boost, floor);
    return r;
}

#undef DIRECT
