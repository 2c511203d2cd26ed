/* rel_entr: p log(p/q), elementwise; 0 where p is 0, inf where either is negative or q alone is 0.
 *
 * By mantissas and exponents: q/p = 2^k (1 + f), so that no quotient overflows, and f keeps its
 * digits where p and q are near, since its numerator is exact. */

#if KLCE_REAL_IS_F64
#define REL_ENTR_LIFT 54
#define REL_ENTR_LIFTED 0x1p54
#else
#define REL_ENTR_LIFT 25
#define REL_ENTR_LIFTED 0x1p25f
#endif

/* x = 2^k mantissa, within [sqrt(1/2), sqrt(2)]; subnormals too. */
typedef struct {
    K(v) k, mantissa;
} K(scaled);

KLCE_INLINE K(scaled) K(scaled_of)(K(v) x)
{
    K(m) small = K(lt)(x, K(set)(SMALLEST_NORMAL));
    K(log_parts) parts = K(log_reduce)(K(select)(small, x * K(set)(REL_ENTR_LIFTED), x));
    K(v) k = K(float_of)(parts.k) - K(select)(small, K(set)(REL_ENTR_LIFT), K(set)(0));
    return (K(scaled)){k, parts.f + K(set)(1)};
}

KLCE_INLINE K(v) K(rel_entr)(K(v) p, K(v) q)
{
    K(v) zero = K(set)(0), infinite = K(set)((real)INFINITY);
    K(scaled) a = K(scaled_of)(p), b = K(scaled_of)(q);
    K(log_parts) parts = K(log_reduce)(b.mantissa / a.mantissa);
    K(v) down = K(from_bits)(K(shift_to_exponent)(K(set_bits)(K(KLCE_BIAS)) - parts.k));
    K(v) f = (b.mantissa * down - a.mantissa) / a.mantissa;
    K(v) log = K(log_join)(b.k - a.k + K(float_of)(parts.k), f);
    K(v) y = p * (zero - log);
    /* Infinities, and nan, have no mantissa. */
    K(m) common = K (and)(K(lt)(p, infinite), K(lt)(q, infinite));
    y = K(select)(common, y, p * (K(log)(p) - K(log)(q)));
    y = K(select)(K(eq)(p, zero), zero, y);
    K(m) none =
        K(or)(K(or)(K(lt)(p, zero), K(lt)(q, zero)), K (and)(K(lt)(zero, p), K(eq)(q, zero)));
    y = K(select)(none, infinite, y);
    return K(select)(K (and)(K(eq)(p, p), K(eq)(q, q)), y, K(set)((real)NAN));
}

static void K(rel_entr_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(v) p_group[VECTORS], q_group[VECTORS];
    for (ptrdiff_t row = low; row < high; row++) {
        const elem *p = K(row_in)(call, 0, row), *q = K(row_in)(call, 1, row);
        elem *y = K(row_out)(call, 2, row);
        for (ptrdiff_t i = 0; i < call->n; i += LANES) {
            K(load_group)(p + i, call->n - i, 1, p_group);
            K(load_group)(q + i, call->n - i, 1, q_group);
            EACH_VECTOR(v) p_group[v] = K(rel_entr)(p_group[v], q_group[v]);
            K(store_group)(y + i, call->n - i, p_group);
        }
    }
}

static const klce_kernel K(rel_entr_kernel) = {.rows = K(rel_entr_rows)};

#undef REL_ENTR_LIFT
#undef REL_ENTR_LIFTED
