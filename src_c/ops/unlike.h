/* Pairs of rows that are unlike: a second sweep without what small divergences need.
 *
 * With high = max(p, q), d = log(q/p) and t = exp(-|d|), a class gives
 *     twice the JS    high ((1 + t) log(2/(1 + t)) - |d| t),
 *     |q - p|         high (1 - t),
 *     p q             of both as they are.
 * The first two are wrong by some 2^-24 high (2^-53), where those of pair_terms.h and
 * js_probs_probs.h are right to that share of themselves; and as the sum of high is 2 at most, that
 * is enough of a JS of a sixteenth, and of a total variation of an eighth; beside such a JS it is
 * 0.09 at least (Lin, 1991: JS <= TV log 2), and mostly a third.  Rows of which there is less are
 * swept once more, as those that do not seem unlike.
 *
 * A class takes a long chain of steps.  So what is summed at a time goes by two loops or more, each
 * with a part of the chain: instructions that wait leave the processor's scheduler room for others
 * (1.16 times as fast from probabilities, 1.08 and then 1.1 to 1.25 from logits). */

/* Whether a row is swept so; and then, whether that is all. */
enum { K(UNLIKE) = K(NEAR_GUESS) };
_Static_assert(FIELD(PLAIN_KL) < FIELD(UNLIKE), "what relates rows stays");

#define UNLIKE_JS 0x1p-4
#define UNLIKE_VARIATION 0x1p-3
/* The first classes of a row, by which it is guessed whether it is unlike. */
#define UNLIKE_SAMPLE 64
_Static_assert(UNLIKE_SAMPLE % LANES == 0 && UNLIKE_SAMPLE <= FEW, "longer rows have as many");

/* ((1 + t) log(2/(1 + t)) - log 2)/t from 0 to 1: times t, to 2^-27 (2^-55) of 1
 * (tools/minimax.py).  A class's JS is high (log 2 + t (this - |d|)). */
KLCE_INLINE K(v) K(unlike_series)(K(v) t)
{
#if KLCE_REAL_IS_F64
    static const double series[] = {
        -0.306852819440066757,    -0.499999999998170592,    0.166666666568872603,
        -0.0833333306615432241,   0.0499999560111751831,    -0.0333328539869682497,
        0.0238058528280659585,    -0.0178365552046342424,   0.0138018011266373435,
        -0.0108270366849684956,   0.00836379420913397372,   -0.00609314052658673959,
        0.00396475856059114999,   -0.00216931246380165191,  0.000934089712294072972,
        -0.000291572474704307759, 0.0000580016377123413899, -5.47977298369985242e-6};
#else
    static const float series[] = {-0.3068534444f,  -0.4999782145f,  0.1664043342f,
                                   -0.08177358995f, 0.04467230562f,  -0.02195993609f,
                                   0.007642414466f, -0.001301055588f};
#endif
    return K(series)(series, (int)(sizeof series / sizeof *series) - 1, t, t * t);
}

/* Joins what the next sweep finds of the others. */
static void K(add_of_others)(const klce_call *call, double *into, const double *from)
{
    if (into[FIELD(UNLIKE)] == 0) /* else both hold what the sweep before left */
        K(divergence_add)(call, into, from);
}
