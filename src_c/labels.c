/* Which label is out of range, and how many count. */
#include <stdatomic.h>

#include "klce.h"
#include "pool.h"

enum {
    STRETCH = 1024,
    PIECE = 1 << 14 /* labels that a thread takes; fewer do not pay for a second one */
};

typedef struct {
    const int64_t *labels;
    ptrdiff_t count;
    int64_t classes, ignore;
    _Atomic ptrdiff_t bad; /* the first one out of range so far, `count` for none */
    _Atomic int64_t counted;
} job;

/* The first of [low, high) that is out of range; `high` for none. */
static ptrdiff_t first_bad(const job *j, ptrdiff_t low, ptrdiff_t high)
{
    for (ptrdiff_t i = low; i < high; i++)
        if (j->labels[i] != j->ignore && (j->labels[i] < 0 || j->labels[i] >= j->classes))
            return i;
    return high;
}

/* By stretches, so that where all is well no branch hangs on a label; in the sign bits of 64-bit
 * integers, since SSE2 cannot compare those. */
static void check_piece(void *context, ptrdiff_t index)
{
    job *j = context;
    const int64_t *labels = j->labels;
    const uint64_t last = (uint64_t)j->classes - 1;
    ptrdiff_t low = index * PIECE, end = low + PIECE < j->count ? low + PIECE : j->count;
    int64_t counted = 0;
    for (; low < end; low += STRETCH) {
        ptrdiff_t high = low + STRETCH < end ? low + STRETCH : end;
        uint64_t outside = 0, bad = 0, ignored = 0;
        for (ptrdiff_t i = low; i < high; i++) /* 3 instructions a vector */
            outside |= (uint64_t)labels[i] | (last - (uint64_t)labels[i]);
        if (outside >> 63 || (j->ignore >= 0 && j->ignore < j->classes))
            for (ptrdiff_t i = low; i < high; i++) {
                uint64_t label = (uint64_t)labels[i], other = label ^ (uint64_t)j->ignore;
                uint64_t counts = other | (0 - other);
                ignored += ~counts >> 63;
                bad |= counts & (label | (last - label));
            }
        if (bad >> 63) {
            ptrdiff_t here = first_bad(j, low, high), first = atomic_load(&j->bad);
            /* None, if the labels change meanwhile. */
            while (here < high && here < first &&
                   !atomic_compare_exchange_weak(&j->bad, &first, here))
                ;
            return;
        }
        counted += high - low - (int64_t)ignored;
    }
    atomic_fetch_add(&j->counted, counted);
}

ptrdiff_t klce_check_labels(const int64_t *labels, ptrdiff_t count, int64_t classes, int64_t ignore,
                            int64_t *counted)
{
    job j = {labels, count, classes, ignore, .bad = count};
    klce_parallel_for((count + PIECE - 1) / PIECE, 0, check_piece, &j);
    *counted = atomic_load(&j.counted);
    ptrdiff_t bad = atomic_load(&j.bad);
    return bad < count ? bad : -1;
}
