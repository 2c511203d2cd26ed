/* Rows of more classes than FEW that lie side by side, of ops that look at a class once: a lane
 * each, as in few.h, but class after class as memory has them, without a copy.
 *
 * KLCE_ABREAST rows at a time, which are whole cache lines of a class.  A class's terms are added
 * to what its lane of the row kernels would hold, class j to lane j % LANES, and that is flushed
 * after as many classes as there, so that the bits are the same.  These sums are in memory: those
 * since the last flush are 8 KB, and some of them stay in L1.
 */
enum { K(ABREAST) = KLCE_ABREAST / WIDTH }; /* vectors of a class, */
enum { K(BESIDE) = 4 };                     /* and of those that are taken in one step */
#define EACH_BESIDE(w) KLCE_UNROLL for (int w = 0; w < K(BESIDE); w++)
#define EACH_ABREAST(w)                                                                            \
    for (int first_ = 0; first_ < K(ABREAST); first_ += K(BESIDE))                                 \
    KLCE_UNROLL for (int w = first_; w < first_ + K(BESIDE); w++)
_Static_assert(K(ABREAST) % K(BESIDE) == 0 && KLCE_ABREAST % KLCE_TILE == 0, "whole tiles");

/* Sums of each lane of each row: since the last flush, and before it, with what rounding took. */
typedef struct {
    K(v) part[LANES][K(ABREAST)];
    v_f64 high[LANES][KLCE_ABREAST / KLCE_WIDTH_f64];
#if KLCE_REAL_IS_F64
    v_f64 low[LANES][KLCE_ABREAST / KLCE_WIDTH_f64];
#endif
} K(abreast_sums);

/* As add_lanes does. */
KLCE_INLINE void K(flush_abreast)(K(abreast_sums) *sums)
{
    for (int l = 0; l < LANES; l++)
        for (int w = 0; w < K(ABREAST); w++) {
            KLCE_UNROLL for (int h = 0; h < HALVES; h++)
            {
                v_f64 *high = &sums->high[l][w * HALVES + h];
#if KLCE_REAL_IS_F64
                ADD_KEEPING(v_f64, *high, sums->part[l][w], sums->low[l][w]);
#else
                *high = *high + K(doubles_at)(&sums->part[l][w], h);
#endif
            }
            sums->part[l][w] = K(set)(0);
        }
}

/* Whether what a class is added to is flushed then: the last one of as many, or of all. */
KLCE_INLINE int K(is_flushed)(ptrdiff_t class, ptrdiff_t n)
{
    return (class + 1) % FLUSH == 0 || class + 1 == n;
}

/* The states of KLCE_ABREAST rows. */
typedef struct {
    double tile[KLCE_ABREAST / KLCE_TILE][KLCE_FIELDS * KLCE_TILE];
} K(abreast_states);

/* The rows' sums, all flushed, in the order of K(total), to a field. */
KLCE_INLINE void K(total_abreast)(const K(abreast_sums) *sums, K(abreast_states) *states, int field)
{
    for (int row = 0; row < KLCE_ABREAST; row += KLCE_WIDTH_f64) {
        int h = row / KLCE_WIDTH_f64;
        v_f64 four[4];
        KLCE_UNROLL for (int k = 0; k < 4; k++) four[k] = sums->high[k][h];
#if KLCE_REAL_IS_F64
        v_f64 lost[4];
        KLCE_UNROLL for (int k = 0; k < 4; k++) lost[k] = sums->low[k][h];
        for (int l = 4; l < LANES; l += 4)
            KLCE_UNROLL for (int k = 0; k < 4; k++)
            {
                ADD_KEEPING(v_f64, four[k], sums->high[l + k][h], lost[k]);
                lost[k] = lost[k] + sums->low[l + k][h];
            }
        ADD_KEEPING(v_f64, four[0], four[2], lost[0]);
        ADD_KEEPING(v_f64, four[1], four[3], lost[1]);
        ADD_KEEPING(v_f64, four[0], four[1], lost[0]);
        v_f64 rest = (lost[0] + lost[2]) + (lost[1] + lost[3]);
        v_f64 sum = four[0] + select_f64(eq_f64(rest, rest), rest, set_f64(0));
#else
        for (int l = 4; l < LANES; l += 4)
            KLCE_UNROLL for (int k = 0; k < 4; k++) four[k] = four[k] + sums->high[l + k][h];
        v_f64 sum = (four[0] + four[2]) + (four[1] + four[3]);
#endif
        store_f64(states->tile[row / KLCE_TILE] + field * KLCE_TILE + row % KLCE_TILE, sum);
    }
}

/* A class of operand k, from a row on. */
KLCE_INLINE const elem *K(class_of)(const klce_call *call, int k, ptrdiff_t row, ptrdiff_t class)
{
    return (const elem *)(call->arg[k] + row * call->step[k] + class * call->core[k]);
}

/* Asks for one that will be read, which may lie beyond the array: classes may be on pages of their
 * own, where the processor does not go ahead.  No further on, since classes that are a power of two
 * apart fall into the same few places of a cache. */
KLCE_INLINE void K(prefetch_class)(const klce_call *call, int k, ptrdiff_t row, ptrdiff_t class)
{
    enum { AHEAD = 12, BYTES = KLCE_ABREAST * sizeof(elem) };
    uintptr_t first = (uintptr_t)call->arg[k] + (uintptr_t)(row * call->step[k]) +
                      (uintptr_t)((class + AHEAD) * call->core[k]);
    KLCE_UNROLL for (uintptr_t line = 0; line < BYTES; line += 64)
        KLCE_PREFETCH((void *)(first + line));
    if (first % 64)
        KLCE_PREFETCH((void *)(first + BYTES - 1));
}
