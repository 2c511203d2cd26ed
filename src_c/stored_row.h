/* A row of a map's results that is stored while the next row is summed: a group for each that is
 * read, so that neither the arithmetic nor the memory waits for the other. */

/* Where it goes. */
typedef enum { K(NO_ROW), K(TO_CACHE), K(PAST_CACHES) } K(row_way);

/* How row y goes.  *before receives how many classes come before the first that begins a cache
 * line, if the rest goes past the caches. */
KLCE_INLINE K(row_way) K(row_way_of)(const klce_call *call, const elem *y, ptrdiff_t *before)
{
    uintptr_t bytes = -(uintptr_t)y % 64;
    *before = 0;
    if (!call->past_caches || bytes % sizeof(elem))
        return K(TO_CACHE);
    *before = KLCE_LESSER((ptrdiff_t)(bytes / sizeof(elem)), call->n);
    KLCE_PREFETCH(y + call->n); /* the line that this row may share with the next one */
    return K(PAST_CACHES);
}

/* Stores the group that starts at y, a line if it goes past the caches, or its first `count`
 * elements. */
KLCE_INLINE void K(store_along)(elem *y, ptrdiff_t count, const K(v) *group, K(row_way) way)
{
    if (way == K(TO_CACHE)) {
        K(prefetch_stored)(y);
        K(store_group)(y, count, group);
    } else if (count >= LANES) {
        EACH_VECTOR(v) K(stream)(y + v * WIDTH, group[v]);
    } else {
        ptrdiff_t a_line = 64 / (ptrdiff_t)sizeof(elem), in_lines = count - count % a_line;
        EACH_VECTOR(v)
        {
            ptrdiff_t left = count - v * WIDTH;
            if (v * WIDTH < in_lines)
                K(stream)(y + v * WIDTH, group[v]);
            else if (left > 0)
                K(store_part)(y + v * WIDTH, left > WIDTH ? WIDTH : (int)left, group[v]);
        }
    }
}
