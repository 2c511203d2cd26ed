/* How many threads a loop may use: what was set, else the CPUs of this process. */
#ifndef KLCE_CPUS_H
#define KLCE_CPUS_H

/* Without pthreads every loop runs inline. */
#if defined(_WIN32) && !defined(KLCE_NO_THREADS)
#define KLCE_NO_THREADS
#endif

/* MSVC knows C11's keyword, but does not support it. */
#if defined(_MSC_VER)
#define KLCE_THREAD_LOCAL __declspec(thread)
#else
#define KLCE_THREAD_LOCAL _Thread_local
#endif

/* No loop runs on more threads than this, whatever is asked. */
#define KLCE_MAX_THREADS 256

/* The CPUs this process may use: affinity and cgroup quota, read anew at every call; at least 1. */
int klce_cpu_count(void);

/* The tightest CPU quota, rounded up to whole CPUs, among a process's cgroups and their ancestors;
 * 0 if there is none. `membership` is the file that lists its cgroups, `mount` the directory that
 * the hierarchies are mounted in. Apart from klce_cpu_count for the sake of its tests. */
int klce_cgroup_cpus(const char *membership, const char *mount);

/* The CPU count as it was when first asked for: finding out reads files. */
int klce_default_threads(void);

/* The one symbol that the extension exports: by it, threadpoolctl tells klce from others. */
#if defined(__GNUC__)
#define KLCE_EXPORTED __attribute__((visibility("default")))
#else
#define KLCE_EXPORTED
#endif

/* The threads a loop started here may use: this thread's override, else the global setting, else
 * the default; at most KLCE_MAX_THREADS. */
KLCE_EXPORTED int klce_get_num_threads(void);

/* Sets the global number of threads, n >= 1 (less counts as 1). */
void klce_set_num_threads(int n);

/* Sets the number of threads for loops started by this thread; 0 clears it. Returns the old. */
int klce_set_thread_override(int n);

#endif
