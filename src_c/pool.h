/* The thread pool: one parallel loop at a time over a set of sleeping workers.
 *
 * No thread exists before the first call that needs one. After fork() the child starts with an
 * empty pool. A task must not fork, and must not leave by longjmp. */
#ifndef KLCE_POOL_H
#define KLCE_POOL_H

#include <stddef.h>

typedef void (*klce_task)(void *context, ptrdiff_t index);

/* Runs task(context, i) for every i in [0, count), each exactly once, on the calling thread and at
 * most max_threads - 1 workers (max_threads <= 0: klce_get_num_threads()), and returns when all are
 * done. Each thread has a share of the indices, in increasing order, and then helps with the
 * others'. Runs inline when count or max_threads is 1, when another caller holds the pool, and
 * inside a task. */
void klce_parallel_for(ptrdiff_t count, int max_threads, klce_task task, void *context);

#endif
