/* Rows of more classes than FEW that lie side by side: a lane each, as in few.h, but class after
 * class as memory has them; panels.h is for ops that look at a class more than once.
 *
 * KLCE_ABREAST rows at a time, which are whole cache lines of a class.  A class's terms are added
 * to what its lane of the row kernels would hold, class j to lane j % LANES, and that is flushed
 * after as many classes as there, so that the bits are the same.  These sums are in memory: those
 * since the last flush are 8 KB, and some of them stay in L1.
 */
enum { K(ABREAST_VECTORS) = KLCE_ABREAST / WIDTH }; /* vectors of a class, */
enum { K(ABREAST_STEP) = 4 };                       /* and of those that are taken in one step */
#define EACH_IN_STEP(w) KLCE_UNROLL for (int w = 0; w < K(ABREAST_STEP); w++)
#define EACH_ABREAST(w)                                                                            \
    for (int first_ = 0; first_ < K(ABREAST_VECTORS); first_ += K(ABREAST_STEP))                   \
    KLCE_UNROLL for (int w = first_; w < first_ + K(ABREAST_STEP); w++)
_Static_assert(K(ABREAST_VECTORS) % K(ABREAST_STEP) == 0 && KLCE_ABREAST % KLCE_TILE == 0,
               "whole tiles");

/* Sums of each lane of WIDTH rows, with what rounding took: a K(lanes) for each. */
typedef struct {
    v_f64 high[LANES][HALVES];
#if KLCE_REAL_IS_F64
    v_f64 low[LANES][HALVES];
#endif
} K(column_lanes);

/* As add_lanes, of one of the lanes. */
KLCE_INLINE void K(add_column_lane)(K(column_lanes) *lanes, int l, const K(v) *part)
{
    KLCE_UNROLL for (int h = 0; h < HALVES; h++)
    {
#if KLCE_REAL_IS_F64
        ADD_KEEPING(v_f64, lanes->high[l][h], *part, lanes->low[l][h]);
#else
        lanes->high[l][h] = lanes->high[l][h] + K(doubles_at)(part, h);
#endif
    }
}

/* The rows' sums in the order of K(total), to a field. */
static KLCE_NOINLINE void K(total_columns)(const K(column_lanes) *lanes, double *field)
{
    for (int h = 0; h < HALVES; h++) {
        v_f64 four[4], lost[4];
        KLCE_UNROLL for (int k = 0; k < 4; k++) four[k] = lanes->high[k][h];
#if KLCE_REAL_IS_F64
        KLCE_UNROLL for (int k = 0; k < 4; k++) lost[k] = lanes->low[k][h];
        for (int l = 4; l < LANES; l += 4)
            KLCE_UNROLL for (int k = 0; k < 4; k++)
            {
                ADD_KEEPING(v_f64, four[k], lanes->high[l + k][h], lost[k]);
                lost[k] = lost[k] + lanes->low[l + k][h];
            }
#else
        for (int l = 4; l < LANES; l += 4)
            KLCE_UNROLL for (int k = 0; k < 4; k++) four[k] = four[k] + lanes->high[l + k][h];
#endif
        store_f64(field + h * KLCE_WIDTH_f64, K(four_added)(four, lost, 1));
    }
}

/* Sums of a block: since the last flush, and before it. */
typedef struct {
    K(v) part[LANES][K(ABREAST_VECTORS)];
    K(column_lanes) lanes[K(ABREAST_VECTORS)];
} K(abreast_sums);

/* Once in 8 groups: of float32 7 instructions a vector of sums (two each to load as doubles, to add
 * and to store, and one to clear it). */
KLCE_INLINE void K(flush_abreast)(K(abreast_sums) *sums)
{
    for (int l = 0; l < LANES; l++)
        for (int w = 0; w < K(ABREAST_VECTORS); w++) {
            K(add_column_lane)(&sums->lanes[w], l, &sums->part[l][w]);
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

/* The state of the rows of vector w, WIDTH of a tile. */
KLCE_INLINE double *K(state_of_vector)(K(abreast_states) *states, int w)
{
    return states->tile[w * WIDTH / KLCE_TILE] + w * WIDTH % KLCE_TILE;
}

/* The rows' sums, all flushed, to a field. */
KLCE_INLINE void K(total_abreast)(const K(abreast_sums) *sums, K(abreast_states) *states, int field)
{
    for (int w = 0; w < K(ABREAST_VECTORS); w++)
        K(total_columns)(&sums->lanes[w], K(state_of_vector)(states, w) + field * KLCE_TILE);
}

/* A class of operand k, from a row on. */
KLCE_INLINE const elem *K(class_of)(const klce_call *call, int k, ptrdiff_t row, ptrdiff_t class)
{
    return (const elem *)(call->arg[k] + row * call->step[k] + class * call->core[k]);
}

/* Asks for a class that comes after one, `core` bytes from each to the next, which may lie beyond
 * the array: classes may be on pages of their own, where the processor does not go ahead.  No
 * further on, since classes that are a power of two apart fall into the same few places of a
 * cache. */
KLCE_INLINE void K(prefetch_after)(const void *class, ptrdiff_t core)
{
    enum { AHEAD = 12, BYTES = KLCE_ABREAST * sizeof(elem) };
    uintptr_t first = (uintptr_t)class + (uintptr_t)(AHEAD * core);
    KLCE_UNROLL for (uintptr_t line = 0; line < BYTES; line += 64)
        KLCE_PREFETCH((void *)(first + line));
    if (first % 64)
        KLCE_PREFETCH((void *)(first + BYTES - 1));
}

KLCE_INLINE void K(prefetch_class)(const klce_call *call, int k, ptrdiff_t row, ptrdiff_t class)
{
    K(prefetch_after)(K(class_of)(call, k, row, class), call->core[k]);
}

/* Where a row of operand k is, counted on from slab to slab. */
KLCE_INLINE char *K(row_of_slabs)(const klce_call *call, int k, ptrdiff_t row)
{
    ptrdiff_t slab = row / call->rows, in_slab = row % call->rows;
    return call->arg[k] + slab * call->slab_step[k] + in_slab * call->step[k];
}

/* That row's slab as a call of its own, `own` being a copy; which row of it that is. */
KLCE_INLINE ptrdiff_t K(in_slab)(const klce_call *call, ptrdiff_t row, klce_call *own)
{
    ptrdiff_t slab = row / call->rows;
    for (int k = 0; k < KLCE_MAX_ARGS && call->slabs > 1; k++)
        if (call->arg[k])
            own->arg[k] = call->arg[k] + slab * call->slab_step[k];
    return row % call->rows;
}

/* An op's `abreast` by its function of a block.  No panels. */
#define ABREAST_OF(op)                                                                             \
    static ptrdiff_t K(op##_abreast)(const klce_call *call, ptrdiff_t low, ptrdiff_t high,         \
                                     void *scratch)                                                \
    {                                                                                              \
        (void)scratch;                                                                             \
        return K(each_block)(call, low, high, K(op##_block));                                      \
    }

/* Blocks of rows [low, high) by a function that returns 0, having written nothing, for one that it
 * leaves; returns the first row that is left. */
KLCE_INLINE ptrdiff_t K(each_block)(const klce_call *call, ptrdiff_t low, ptrdiff_t high,
                                    int (*block)(const klce_call *, ptrdiff_t row))
{
    klce_call own = *call;
    while (low + KLCE_ABREAST <= high) {
        ptrdiff_t row = K(in_slab)(call, low, &own);
        if (!block(&own, row))
            break;
        low += KLCE_ABREAST;
    }
    return low;
}
