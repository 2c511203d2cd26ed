/* Probabilities so small that products with them are subnormal numbers, which cost a hundred cycles
 * each.  Those below SMALL are taken 2^RAISE times, and so are their terms, for which there are
 * sums of their own.  Above, a product with a logarithm of 2^-36 and more is a normal number. */

#if KLCE_REAL_IS_F64
#define SMALLEST_NORMAL 0x1p-1022
#define FRACTION_BITS 0xfffffffffffff
#define INTEGER_BITS 0x4330000000000000 /* or-ed to bits below 2^52: 2^52 + that integer */
#define INTEGER_ONE 0x1p52
#define SMALL 0x1p-900
#define RAISE 256
#define RAISED 0x1p256
#define UNRAISED 0x1p-256
#define RAISED_UNIT 0x1p-818 /* 2^RAISE times the smallest subnormal number */
#else
#define SMALLEST_NORMAL 0x1p-126f
#define FRACTION_BITS 0x7fffff
#define INTEGER_BITS 0x4b000000
#define INTEGER_ONE 0x1p23f
#define SMALL 0x1p-90f
#define RAISE 64
#define RAISED 0x1p64f
#define UNRAISED 0x1p-64f
#define RAISED_UNIT 0x1p-85f
#endif

/* A class's term, as it is or 2^RAISE times; the other is 0. */
typedef struct {
    K(v) plain, raised;
} K(term);

/* Whether any is small and not 0, which costs nothing. */
KLCE_INLINE int K(any_small)(const K(v) *p, ptrdiff_t n)
{
    K(v) zero = K(set)(0), small = K(set)(SMALL);
    K(m) any = K(lt)(zero, zero);
    for (ptrdiff_t i = 0; i < n; i++)
        any = K(or)(any, K (and)(K(lt)(zero, p[i]), K(lt)(p[i], small)));
    return K(any)(any);
}

/* How many times the smallest subnormal number p is, of those below the normal ones and 0 of either
 * sign: the integer of its bits, so that nothing touches the number itself. */
KLCE_INLINE K(v) K(subnormal_units)(K(v) p)
{
    K(b) fraction = K(to_bits)(p) & K(set_bits)(FRACTION_BITS);
    return K(from_bits)(fraction | K(set_bits)(INTEGER_BITS)) - K(set)(INTEGER_ONE);
}

/* 2^RAISE p, of a p below 1. */
KLCE_INLINE K(v) K(raised)(K(v) p)
{
    K(v) tiny = K(set)(SMALLEST_NORMAL);
    K(v) low = K(subnormal_units)(p) * K(set)(RAISED_UNIT);
    return K(select)(K(lt)(p, tiny), low, K(max)(tiny, p) * K(set)(RAISED));
}

/* Adds the sums of columns that were raised to a field. */
KLCE_INLINE void K(add_raised)(K(four_sums) *columns, double *field)
{
    double raised[WIDTH];
    K(total_of_four)(columns, raised);
    for (int i = 0; i < WIDTH; i++)
        field[i] += raised[i] * UNRAISED;
}

#undef FRACTION_BITS
#undef INTEGER_BITS
#undef INTEGER_ONE
#undef RAISED_UNIT
