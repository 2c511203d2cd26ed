/* Twofold arithmetic: a number as the sum of two doubles, sums and products of which are good to
 * about 2^-100, exponentials to 2^-66.  For a difference of exponentials and probabilities that is
 * to keep the digits of a divergence of 1e-12. */

typedef struct {
    v_f64 high, low;
} twofold;

/* a + b without error (Knuth). */
KLCE_INLINE twofold two_sum(v_f64 a, v_f64 b)
{
    v_f64 s = a + b, c = s - a;
    return (twofold){s, (a - (s - c)) + (b - c)};
}

/* a * b without error; where there is no fused multiply-add, by halves of 26 and 27 bits (Dekker),
 * of which the product of the tails may round, by 2^-107 of all. */
KLCE_INLINE twofold two_product(v_f64 a, v_f64 b)
{
    v_f64 p = a * b;
#if KLCE_FMA
    return (twofold){p, fma_f64(a, b, -p)};
#else
    b_f64 half = set_bits_f64(~(int64_t)0x7ffffff);
    v_f64 a_head = from_bits_f64(to_bits_f64(a) & half), a_tail = a - a_head;
    v_f64 b_head = from_bits_f64(to_bits_f64(b) & half), b_tail = b - b_head;
    v_f64 low = ((a_head * b_head - p) + a_head * b_tail) + a_tail * b_head;
    return (twofold){p, low + a_tail * b_tail};
#endif
}

/* a * b + (c + c_low), for c larger than the product. */
KLCE_INLINE twofold twofold_fma(twofold a, twofold b, double c, double c_low)
{
    twofold p = two_product(a.high, b.high);
    v_f64 low = p.low + (a.high * b.low + a.low * b.high);
    v_f64 s = set_f64(c) + p.high;
    return (twofold){s, (p.high - (s - set_f64(c))) + (low + set_f64(c_low))};
}

/* exp(w) for w.high from -708 to 709: as in vmath.h, with ln2 in three pieces and the first terms
 * of the series twofold; from r^5 on, at most 2^-14 of it, a double does.  0 below, inf above. */
KLCE_INLINE twofold twofold_exp(twofold w)
{
    v_f64 floor = set_f64(-708), ceiling = set_f64(709);
    v_f64 x = min_f64(ceiling, max_f64(floor, w.high));
    v_f64 shifted =
        fma_f64(x, set_f64(0x1.71547652b82fep+0), set_f64(KLCE_MAGIC_f64 + KLCE_BIAS_f64));
    v_f64 n = shifted - set_f64(KLCE_MAGIC_f64 + KLCE_BIAS_f64);
    v_f64 scale = from_bits_f64(shift_to_exponent_f64(to_bits_f64(shifted)));
    v_f64 exact = fma_f64(n, set_f64(-0x1.62e42fefa0000p-1), x);
    twofold middle = two_product(n, set_f64(0x1.cf79abc9e3b3ap-40));
    twofold r = two_sum(exact, -middle.high);
    r.low = r.low + (w.low - middle.low - n * set_f64(-0x1.ff0342542fc33p-94));
    static const double inverse_factorial[] = {
        1 / 20922789888000.0, 1 / 1307674368000.0, 1 / 87178291200.0, 1 / 6227020800.0,
        1 / 479001600.0,      1 / 39916800.0,      1 / 3628800.0,     1 / 362880.0,
        1 / 40320.0,          1 / 5040.0,          1 / 720.0,         1 / 120.0,
    };
    v_f64 tail = set_f64(inverse_factorial[0]);
    for (int k = 1; k < 12; k++)
        tail = fma_f64(tail, r.high, set_f64(inverse_factorial[k]));
    twofold sum = two_sum(set_f64(0x1.5555555555555p-5), tail * r.high);
    sum.low = sum.low + set_f64(0x1.5555555555555p-59);
    sum = twofold_fma(sum, r, 0x1.5555555555555p-3, 0x1.5555555555555p-57);
    sum = twofold_fma(sum, r, 0.5, 0);
    sum = twofold_fma(sum, r, 1, 0);
    sum = twofold_fma(sum, r, 1, 0);
    m_f64 below = lt_f64(w.high, floor), above = lt_f64(ceiling, w.high);
    v_f64 zero = set_f64(0), infinite = set_f64(INFINITY);
    return (twofold){
        select_f64(below, zero, select_f64(above, infinite, sum.high * scale)),
        select_f64(or_f64(below, above), zero, sum.low * scale),
    };
}
