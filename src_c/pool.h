/* The thread pool: one parallel loop at a time over a set of sleeping workers.
 *
 * No thread exists before the first call that needs one. After fork() the child starts with an
 * empty pool. A task must not fork, and must not leave by longjmp. */
#ifndef KLCE_POOL_H
#define KLCE_POOL_H

#include <stddef.h>

/* No loop runs on more threads than this, whatever is asked. */
#define KLCE_MAX_THREADS 256

typedef void (*klce_task)(void *context, ptrdiff_t index);

/* Runs task(context, i) for every i in [0, count), each exactly once, on the calling thread and at
 * most max_threads - 1 workers (max_threads <= 0: klce_get_num_threads()), and returns when all are
 * done. Each thread has a share of the indices, in increasing order, and then helps with the others'. Runs
 * inline when count or max_threads is 1, when another caller holds the pool, and inside a task. */
void klce_parallel_for(ptrdiff_t count, int max_threads, klce_task task, void *context);

/* The CPUs this process may use: affinity and cgroup quota, read anew at every call; at least 1. */
int klce_cpu_count(void);

/* The one symbol that the extension exports: by it, threadpoolctl tells klce from others. */
#if defined(__GNUC__)
#define KLCE_EXPORTED __attribute__((visibility("default")))
#else
#define KLCE_EXPORTED
#endif

/* The threads a loop started here may use: this thread's override, else the global setting, else
 * the CPU count as it was when first asked for; at most KLCE_MAX_THREADS. */
KLCE_EXPORTED int klce_get_num_threads(void);

/* Sets the global number of threads, n >= 1 (less counts as 1). */
void klce_set_num_threads(int n);

/* Sets the number of threads for loops started by this thread; 0 clears it. Returns the old. */
int klce_set_thread_override(int n);

/* The tightest CPU quota, rounded up to whole CPUs, among a process's cgroups and their ancestors;
 * 0 if there is none. `membership` is the file that lists its cgroups, `mount` the directory that
 * the hierarchies are mounted in. Apart from klce_cpu_count for the sake of its tests. */
int klce_cgroup_cpus(const char *membership, const char *mount);

#endif
