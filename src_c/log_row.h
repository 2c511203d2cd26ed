/* A row of log-probabilities at a temperature of 1, (x - max) - log, as stored_row.h has it. */

typedef struct {
    K(row_way) way;
    const elem *x; /* from where it goes on to be stored */
    elem *y;
    ptrdiff_t left; /* classes */
    real max, log;  /* numbers, not vectors: they are at hand sooner */
} K(log_row);

/* 4 instructions a vector: load, two subtractions, store. */
KLCE_INLINE void K(put_logs)(const K(log_row) *row, ptrdiff_t k, ptrdiff_t count, K(row_way) way)
{
    K(v) group[VECTORS], max = K(set)(row->max), log = K(set)(row->log);
    K(load_group)(row->x + k, count, 0, group);
    EACH_VECTOR(v) group[v] = (group[v] - max) - log;
    K(store_along)(row->y + k, count, group, way);
}

/* All from class k on.  By its fields, which may so be in registers elsewhere. */
static KLCE_NOINLINE void K(put_logs_from)(ptrdiff_t k, K(row_way) way, const elem *x, elem *y,
                                           ptrdiff_t left, real max, real log)
{
    const K(log_row) own = {way, x, y, left, max, log};
    for (; k < left; k += LANES)
        K(put_logs)(&own, k, left - k, way);
}

/* The groups from class k on, GROUPS of them or the one that has `count` classes, while as many
 * classes of the next row are read. */
KLCE_INLINE void K(put_logs_along)(K(log_row) *row, ptrdiff_t k, ptrdiff_t count, int groups,
                                   K(row_way) way)
{
    if (way == K(TO_CACHE) || k + groups * LANES <= row->left) {
        KLCE_UNROLL for (int g = 0; g < groups; g++, k += LANES) K(put_logs)(row, k, count, way);
    } else { /* at its end sooner than the next row, by the classes before its first line */
        K(put_logs_from)(k, way, row->x, row->y, row->left, row->max, row->log);
        row->left = 0;
    }
}
