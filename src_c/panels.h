/* Rows of many classes that lie side by side, of ops that look at a class more than once: blocks of
 * KLCE_ABREAST rows in panels of scratch memory.
 *
 * While the block at hand is summed, the one after it is read, class by class, into the places of
 * classes that are done with: memory is at work beside the exponentials, and what is written is in
 * L1.  A map has two panels, since its results stay until they are stored, each before a class of
 * the block after the next takes its place.
 */
typedef struct {
    const klce_call *call;
    klce_call own;      /* the slab that the block at hand is of, */
    ptrdiff_t row;      /* and its first row there; */
    ptrdiff_t at, high; /* the same among the rows of all slabs, and where they end */
    int out;            /* the operand that results go to, or 0 */
    char *before;       /* where those of the block before go, */
    const char *after;  /* and where the block after lies; or NULL */
    K(v) *now, *other;  /* the panels of this block and of those */
    K(v) max[K(ABREAST_VECTORS)],
        max_after[K(ABREAST_VECTORS)]; /* the rows' maxima, nan passed over, */
    K(v) first[K(ABREAST_VECTORS)],
        first_after[K(ABREAST_VECTORS)]; /* and, if asked for, their classes */
} K(blocks);
_Static_assert(LANES % KLCE_PANEL_CLASSES == 0 && KLCE_PANEL_CLASSES % KLCE_BESIDE == 0,
               "classes that are together in a panel are whole steps");

/* In a panel KLCE_PANEL_CLASSES classes of WIDTH rows are together, then those of the next WIDTH
 * rows: so a loop over classes by as many, and rows within, goes straight on. */
KLCE_INLINE K(v) *K(columns_at)(K(v) *panel, ptrdiff_t j, int w)
{
    ptrdiff_t whole = j / KLCE_PANEL_CLASSES, k = j % KLCE_PANEL_CLASSES;
    return panel + (whole * K(ABREAST_VECTORS) + w) * KLCE_PANEL_CLASSES + k;
}

/* What a map makes of the block at hand: columns(&own[w], classes, count) of some classes of the
 * rows of vector w, `count` being a constant. */
#define OVER_PANEL(b, columns, own)                                                                \
    do {                                                                                           \
        const ptrdiff_t n_ = (b)->call->n, whole_ = n_ - n_ % KLCE_PANEL_CLASSES;                  \
        for (ptrdiff_t j_ = 0; j_ < whole_; j_ += KLCE_PANEL_CLASSES)                              \
            for (int w_ = 0; w_ < K(ABREAST_VECTORS); w_++)                                        \
                columns(&(own)[w_], K(columns_at)((b)->now, j_, w_), KLCE_PANEL_CLASSES);          \
        for (ptrdiff_t j_ = whole_; j_ < n_; j_++)                                                 \
            for (int w_ = 0; w_ < K(ABREAST_VECTORS); w_++)                                        \
                columns(&(own)[w_], K(columns_at)((b)->now, j_, w_), 1);                           \
    } while (0)

/* Class j of a block into a panel; the first class of a row's maximum is kept if `firsts` are asked
 * for, -1 while that is -inf.  4 instructions a vector (load, store, maximum, its store), with
 * firsts 8. */
KLCE_INLINE void K(take_class)(K(blocks) *b, const char *block, ptrdiff_t j, K(v) *panel,
                               int firsts)
{
    const ptrdiff_t core = b->call->core[0];
    const elem *x = (const elem *)(block + j * core);
    K(v) *column = K(columns_at)(panel, j, 0);
    K(prefetch_after)(x, core);
    EACH_ABREAST(w)
    {
        K(v) own = K(load)(x + w * WIDTH);
        column[w * KLCE_PANEL_CLASSES] = own;
        if (firsts) {
            K(m) larger = K(lt)(b->max_after[w], own);
            b->first_after[w] = K(select)(larger, K(set)((real)j), b->first_after[w]);
        }
        b->max_after[w] = K(max)(own, b->max_after[w]);
    }
}

/* And from a panel to where results go. */
KLCE_INLINE void K(put_class)(const K(blocks) *b, ptrdiff_t j, K(v) *panel)
{
    const ptrdiff_t core = b->call->core[b->out];
    elem *y = (elem *)(b->before + j * core);
    const K(v) *column = K(columns_at)(panel, j, 0);
    K(prefetch_after)(y, core);
    EACH_ABREAST(w) K(store)(y + w * WIDTH, column[w * KLCE_PANEL_CLASSES]);
}

/* Class j of the blocks around the one at hand, where that is done with it. */
KLCE_INLINE void K(move_class)(K(blocks) *b, ptrdiff_t j, int firsts)
{
    if (b->before)
        K(put_class)(b, j, b->other);
    if (b->after)
        K(take_class)(b, b->after, j, b->other, firsts);
}

/* Of the block after. */
KLCE_INLINE void K(forget_maxima)(K(blocks) *b)
{
    for (int w = 0; w < K(ABREAST_VECTORS); w++) {
        b->max_after[w] = K(set)((real)-INFINITY);
        b->first_after[w] = K(set)(-1);
    }
}

/* The block that is `at` on now, which was read into the other panel, comes to hand. */
static KLCE_NOINLINE void K(turn_blocks)(K(blocks) *b)
{
    const ptrdiff_t next = b->at + KLCE_ABREAST;
    K(v) *now = b->other;
    b->other = b->now;
    b->now = now;
    b->row = K(in_slab)(b->call, b->at, &b->own);
    b->after = next + KLCE_ABREAST <= b->high ? K(row_of_slabs)(b->call, 0, next) : NULL;
    for (int w = 0; w < K(ABREAST_VECTORS); w++) {
        b->max[w] = b->max_after[w];
        b->first[w] = b->first_after[w];
    }
    K(forget_maxima)(b);
}

/* The first block of rows [low, high), which are a block at least, comes to hand. */
static KLCE_NOINLINE void K(first_block)(K(blocks) *b, const klce_call *call, int out,
                                         ptrdiff_t low, ptrdiff_t high, void *scratch, int firsts)
{
    const ptrdiff_t n = call->n, whole = n + (-n & (KLCE_PANEL_CLASSES - 1));
    b->call = call;
    b->own = *call;
    b->at = low;
    b->high = high;
    b->out = out;
    b->before = NULL;
    b->now = scratch;
    b->other = out ? K(columns_at)(b->now, whole, 0) : b->now;
    K(forget_maxima)(b);
    for (ptrdiff_t j = 0; j < n; j++)
        K(take_class)(b, K(row_of_slabs)(call, 0, low), j, b->other, firsts);
    K(turn_blocks)(b);
}

/* Hands the states of the block at hand to `finish`. */
KLCE_INLINE void K(finish_block)(const K(blocks) *b, K(abreast_states) *states, klce_finish finish)
{
    for (int t = 0; t < KLCE_ABREAST / KLCE_TILE; t++)
        finish(&b->own, b->row + t * KLCE_TILE, KLCE_TILE, states->tile[t]);
}

/* The block at hand is done; whether there is another one, which is then at hand.  The last one's
 * results are stored. */
static KLCE_NOINLINE int K(next_block)(K(blocks) *b)
{
    int goes_on = b->after != NULL;
    b->before = b->out ? K(row_of_slabs)(b->call, b->out, b->at) : NULL;
    b->at += KLCE_ABREAST;
    if (goes_on)
        K(turn_blocks)(b);
    else if (b->before)
        for (ptrdiff_t j = 0; j < b->call->n; j++)
            K(put_class)(b, j, b->now);
    return goes_on;
}
