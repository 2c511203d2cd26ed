/* Which label is out of range, and how many count. */
#include "klce.h"

/* By stretches, so that where all is well no branch hangs on a label; in the sign bits of 64-bit
 * integers, since SSE2 cannot compare those.  Fast enough that the pool's threads, which look for
 * work for some 50 us, are still awake when the kernel follows. */
ptrdiff_t klce_check_labels(const int64_t *labels, ptrdiff_t count, int64_t classes, int64_t ignore,
                            int64_t *counted)
{
    enum { STRETCH = 1024 };
    *counted = 0;
    for (ptrdiff_t low = 0; low < count; low += STRETCH) {
        ptrdiff_t high = low + STRETCH < count ? low + STRETCH : count;
        uint64_t outside = 0, bad = 0, ignored = 0;
        for (ptrdiff_t i = low; i < high; i++) /* 3 instructions a vector */
            outside |= (uint64_t)labels[i] | ((uint64_t)classes - 1 - (uint64_t)labels[i]);
        if (outside >> 63 || (ignore >= 0 && ignore < classes))
            for (ptrdiff_t i = low; i < high; i++) {
                uint64_t label = (uint64_t)labels[i], other = label ^ (uint64_t)ignore;
                uint64_t counts = other | (0 - other);
                ignored += ~counts >> 63;
                bad |= counts & (label | ((uint64_t)classes - 1 - label));
            }
        if (bad >> 63)
            for (ptrdiff_t i = low; i < high; i++) {
                if (labels[i] != ignore && (labels[i] < 0 || labels[i] >= classes))
                    return i;
                *counted += labels[i] != ignore;
            }
        *counted += high - low - (ptrdiff_t)ignored;
    }
    return -1;
}
