/* Tests of the thread pool, src_c/pool.c, and of the number of threads, src_c/cpus.c. Built with
 * these alone, -I src_c and -pthread, and with -DNO_FORK_TESTS where the emulator breaks threads in
 * a forked child (qemu-user 7.2 does). */
#define _GNU_SOURCE
#include "check.h"
#include "cpus.h"
#include "pool.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED_MEMORY
#endif
#elif defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED_MEMORY
#endif
/* The child of a threaded process cannot count on threads of its own under the thread sanitizer,
 * nor under the address sanitizer, whose allocator may be locked by a thread that the fork lost. */
#if !defined(NO_FORK_TESTS) && !defined(SANITIZED_MEMORY)
#define TEST_FORK
#endif
#if defined(__linux__) && !defined(KLCE_NO_THREADS)
#define TEST_LINUX
#endif

static const int THREADS[] = {1, 2, 3, 7};
enum { N_THREADS = sizeof THREADS / sizeof *THREADS };

static void sleep_us(long us)
{
    nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
}

/* Not atomic on purpose: the thread sanitizer then sees whether the pool orders the accesses. */
static void count_one(void *context, ptrdiff_t i) { ((unsigned char *)context)[i]++; }

static void check_each_once(ptrdiff_t count, int threads)
{
    unsigned char *seen = calloc((size_t)count + 1, 1);
    CHECK(seen);
    klce_parallel_for(count, threads, count_one, seen);
    for (ptrdiff_t i = 0; i < count; i++)
        CHECK(seen[i] == 1);
    CHECK(seen[count] == 0);
    free(seen);
}

/* The number of threads of this process; 0 where it is not known. */
static int living_threads(void)
{
    int n = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(tasks));)
        n += entry->d_name[0] != '.';
    closedir(tasks);
    return n;
}

static void *return_at_once(void *unused) { return unused; }

static void test_lazy_start(void)
{
    /* The thread sanitizer starts a thread of its own along with the first one. */
    pthread_t first;
    CHECK(pthread_create(&first, NULL, return_at_once, NULL) == 0);
    CHECK(pthread_join(first, NULL) == 0);
    sleep_us(20000); /* joined, but listed for a moment longer */
    int before = living_threads();
    check_each_once(1, 8);
    check_each_once(100, 1);
    check_each_once(0, 8);
    CHECK(living_threads() == before);
#ifdef TEST_LINUX
    check_each_once(100, 2);
    CHECK(living_threads() == before + 1);
    check_each_once(3, 100); /* no more workers than tasks */
    CHECK(living_threads() == before + 2);
    check_each_once(100, 2);
    CHECK(living_threads() == before + 2);
#endif
}

static void test_each_index_once(void)
{
    static const ptrdiff_t counts[] = {0, 1, 2, 3, 5, 8, 13, 64, 100, 1000, 4099, 100000};
    for (int t = 0; t < N_THREADS; t++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            check_each_once(counts[c], THREADS[t]);
    check_each_once(1000, KLCE_MAX_THREADS / 8);
    for (int i = 0; i < 5000; i++) { /* with workers awake, and now and then asleep */
        check_each_once(i % 17, THREADS[i % N_THREADS]);
        if (i % 500 == 0)
            sleep_us(300);
    }
}

/* Comes back when `wanted` threads have called it for this counter; gives up after ten seconds. */
static void meet(atomic_int *arrived, int wanted)
{
    atomic_fetch_add(arrived, 1);
    for (int ms = 0; ms < 10000 && atomic_load(arrived) < wanted; ms++)
        sleep_us(1000);
}

/* Who ran which task. The first two tasks meet where they may, so that they need two threads. */
struct census {
    int meeting;
    atomic_int arrived;
    pthread_t thread[64];
    bool int_blocked[64], segv_blocked[64];
};

static void note_thread(void *context, ptrdiff_t i)
{
    struct census *census = context;
    sigset_t mask;
    census->thread[i] = pthread_self();
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0);
    census->int_blocked[i] = sigismember(&mask, SIGINT) == 1;
    census->segv_blocked[i] = sigismember(&mask, SIGSEGV) == 1;
    if (i < census->meeting)
        meet(&census->arrived, census->meeting);
}

static void test_who_takes_part(void)
{
    for (int t = 0; t < N_THREADS; t++) {
        struct census census = {0};
        int distinct = 0;
#ifdef TEST_LINUX
        census.meeting = THREADS[t] > 1 ? 2 : 0;
#endif
        klce_parallel_for(64, THREADS[t], note_thread, &census);
        for (int i = 0; i < 64; i++) {
            int j = 0;
            while (!pthread_equal(census.thread[i], census.thread[j]))
                j++;
            distinct += j == i;
            bool mine = pthread_equal(census.thread[i], pthread_self());
            CHECK(census.int_blocked[i] == !mine && !census.segv_blocked[i]);
        }
        CHECK(distinct >= 1 && distinct >= census.meeting && distinct <= THREADS[t]);
    }
}

/* Each outer task runs an inner loop, which must stay on the outer task's thread. */
struct nest {
    pthread_t outer;
    bool same;
    unsigned char seen[50];
};

static void inner(void *context, ptrdiff_t i)
{
    struct nest *nest = context;
    nest->same = nest->same && pthread_equal(nest->outer, pthread_self());
    nest->seen[i]++;
}

static void outer(void *context, ptrdiff_t i)
{
    struct nest *nest = (struct nest *)context + i;
    nest->outer = pthread_self();
    nest->same = true;
    klce_parallel_for(50, 4, inner, nest);
}

static void test_nested(void)
{
    for (int t = 0; t < N_THREADS; t++) {
        struct nest nests[20] = {0};
        klce_parallel_for(20, THREADS[t], outer, nests);
        for (int n = 0; n < 20; n++) {
            CHECK(nests[n].same);
            for (int i = 0; i < 50; i++)
                CHECK(nests[n].seen[i] == 1);
        }
    }
}

static void *call_repeatedly(void *unused)
{
    for (int i = 0; i < 1000; i++)
        check_each_once(i % 97, THREADS[i % N_THREADS]);
    return unused;
}

static void test_concurrent_callers(void)
{
    pthread_t callers[5];
    for (int i = 0; i < 5; i++)
        CHECK(pthread_create(&callers[i], NULL, call_repeatedly, NULL) == 0);
    for (int i = 0; i < 5; i++)
        CHECK(pthread_join(callers[i], NULL) == 0);
}

/* The caller sits in its own task until the worker is in one, and leaves first: it must wait. */
static void wait_for_other(void *context, ptrdiff_t i)
{
    atomic_int *state = context;
    if (i == 0)
        for (int ms = 0; ms < 2000 && atomic_load(&state[0]) == 0; ms++)
            sleep_us(1000);
    else {
        atomic_store(&state[0], 1);
        sleep_us(20000);
        atomic_store(&state[1], 1);
    }
}

static void test_waits_for_slow_worker(void)
{
    atomic_int state[2] = {0, 0};
    klce_parallel_for(2, 2, wait_for_other, state);
    CHECK(atomic_load(&state[1]) == 1);
}

static long microseconds(const struct rusage *usage)
{
    return (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000L + usage->ru_utime.tv_usec +
           usage->ru_stime.tv_usec;
}

static void test_idle_workers_sleep(void)
{
    struct rusage a, b;
    check_each_once(1000, 7);
    sleep_us(20000);
    getrusage(RUSAGE_SELF, &a);
    sleep_us(200000);
    getrusage(RUSAGE_SELF, &b);
    long us = microseconds(&b) - microseconds(&a);
    CHECK(us < 50000);
}

static void *see_other_thread(void *unused)
{
    CHECK(klce_get_num_threads() == 5); /* the global setting: the override is its setter's own */
    CHECK(klce_set_thread_override(2) == 0);
    return unused;
}

static void test_settings(void)
{
    pthread_t thread;
    int automatic = klce_get_num_threads();
    CHECK(automatic >= 1 && automatic <= klce_cpu_count() && automatic <= KLCE_MAX_THREADS);
    klce_set_num_threads(5);
    CHECK(klce_get_num_threads() == 5);
    CHECK(klce_set_thread_override(3) == 0);
    CHECK(klce_get_num_threads() == 3);
    CHECK(pthread_create(&thread, NULL, see_other_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    check_each_once(100, 0);
    CHECK(klce_set_thread_override(1) == 3);
    check_each_once(100, -1);
    CHECK(klce_set_thread_override(0) == 1);
    CHECK(klce_set_thread_override(-4) == 0);
    CHECK(klce_get_num_threads() == 5);
    klce_set_num_threads(1000000);
    CHECK(klce_get_num_threads() == KLCE_MAX_THREADS);
    klce_set_num_threads(0);
    CHECK(klce_get_num_threads() == 1);
    klce_set_num_threads(automatic);
}

#ifdef TEST_LINUX
static void test_affinity(void)
{
    cpu_set_t all, one;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    int before = klce_cpu_count();
    CHECK(before >= 1 && before <= CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &all))
            CPU_SET(cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(klce_cpu_count() == 1);
    check_each_once(1000, 3);
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
    CHECK(klce_cpu_count() == before);
}

/* Two tasks on two threads. When they have met, the caller is past waking the worker, for which it
 * narrows the worker's affinity. */
struct masks {
    atomic_int arrived;
    cpu_set_t mask[2];
};

static void note_mask(void *context, ptrdiff_t i)
{
    struct masks *masks = context;
    meet(&masks->arrived, 2);
    CHECK(sched_getaffinity(0, sizeof masks->mask[i], &masks->mask[i]) == 0);
}

static void test_workers_keep_affinity(void)
{
    cpu_set_t all;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    for (int round = 0; round < 20; round++) {
        struct masks masks = {0};
        sleep_us(1000); /* workers asleep */
        klce_parallel_for(2, 2, note_mask, &masks);
        CHECK(CPU_EQUAL(&masks.mask[0], &all) && CPU_EQUAL(&masks.mask[1], &all));
    }
}

static char tree[256];

static const char *in_tree(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", tree, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(in_tree(name), "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static int cpus_of(const char *membership)
{
    char path[512];
    write_file("membership", membership);
    snprintf(path, sizeof path, "%s", in_tree("membership"));
    return klce_cgroup_cpus(path, tree);
}

/* A made-up tree of cgroups: /a limits to 2.5 CPUs, /a/b not at all, /c by a v1 hierarchy to 1. */
static void test_cgroup_quota(void)
{
    static const char *const directories[] = {"a", "a/b", "a/b/c", "cpu", "cpu/c", "cpu/c/d"};
    static const char *const files[] = {"a/cpu.max",
                                        "a/b/cpu.max",
                                        "a/b/c/cpu.max",
                                        "cpu/cpu.cfs_quota_us",
                                        "cpu/cpu.cfs_period_us",
                                        "cpu/c/cpu.cfs_quota_us",
                                        "cpu/c/cpu.cfs_period_us",
                                        "cpu.max",
                                        "membership"};
    enum { N_DIRECTORIES = sizeof directories / sizeof *directories };
    const char *parent = getenv("TMPDIR");
    snprintf(tree, sizeof tree, "%s/klce-cgroup-XXXXXX", parent ? parent : P_tmpdir);
    CHECK(mkdtemp(tree));
    for (int i = 0; i < N_DIRECTORIES; i++)
        CHECK(mkdir(in_tree(directories[i]), 0700) == 0);
    write_file("a/cpu.max", "250000 100000\n");
    write_file("a/b/cpu.max", "max 100000\n");
    write_file("a/b/c/cpu.max", "700000 100000\n");
    write_file("cpu/cpu.cfs_quota_us", "-1\n");
    write_file("cpu/cpu.cfs_period_us", "100000\n");
    write_file("cpu/c/cpu.cfs_quota_us", "50000\n");
    write_file("cpu/c/cpu.cfs_period_us", "100000\n");

    CHECK(cpus_of("0::/\n") == 0);
    CHECK(cpus_of("0::/a\n") == 3);
    CHECK(cpus_of("0::/a/b\n") == 3);
    CHECK(cpus_of("0::/a/b/c\n") == 3);       /* the ancestor's is tighter */
    CHECK(cpus_of("0::/a/elsewhere\n") == 3); /* a path that exists outside the container only */
    CHECK(cpus_of("7:memory:/c\n4:cpuset:/c\n1:name=systemd:/c\n0::/\n") == 0);
    CHECK(cpus_of("7:memory:/c\n4:cpuacct,cpu:/c/d\n0::/a\n") == 1);
    CHECK(cpus_of("4:cpu,cpuacct:/\n") == 0);
    CHECK(cpus_of("") == 0 && cpus_of("nonsense\n:\n") == 0);
    write_file("cpu.max", "100001 100000\n");
    CHECK(cpus_of("0::/a/b\n") == 2);
    CHECK(cpus_of("0::/../x\n") == 2);
    write_file("cpu.max", "");
    CHECK(cpus_of("0::/\n") == 0);
    CHECK(klce_cgroup_cpus(in_tree("missing"), tree) == 0);

    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        CHECK(unlink(in_tree(files[i])) == 0);
    for (int i = N_DIRECTORIES; i-- > 0;)
        CHECK(rmdir(in_tree(directories[i])) == 0);
    CHECK(rmdir(tree) == 0);
}
#endif

#ifdef TEST_FORK
static void run_in_child(void (*body)(void))
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60); /* a hang ends as a signal, and so as a failure */
        body();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void use_pool(void)
{
    for (int t = 0; t < N_THREADS; t++)
        check_each_once(1000, THREADS[t]);
#ifdef TEST_LINUX
    test_who_takes_part(); /* the child has workers of its own */
#endif
}

static void use_pool_and_fork(void)
{
    use_pool();
    run_in_child(use_pool);
}

static void test_fork_after_use(void)
{
    check_each_once(1000, 3); /* workers awake */
    run_in_child(use_pool);
    sleep_us(5000); /* workers asleep */
    run_in_child(use_pool_and_fork);
    use_pool();
}

static atomic_bool stop;

static void nap(void *context, ptrdiff_t i)
{
    sleep_us(100 + 50 * (i % 3));
    count_one(context, i);
}

static void *keep_busy(void *unused)
{
    while (!atomic_load(&stop)) {
        unsigned char seen[12] = {0};
        klce_parallel_for(12, 3, nap, seen);
        for (int i = 0; i < 12; i++)
            CHECK(seen[i] == 1);
    }
    return unused;
}

static void test_fork_during_loop(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, keep_busy, NULL) == 0);
    for (int i = 0; i < 30; i++) {
        sleep_us(37 * i);
        run_in_child(use_pool);
    }
    atomic_store(&stop, true);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void use_pool_without_memory(void)
{
    CHECK(setrlimit(RLIMIT_AS, &(struct rlimit){1, 1}) == 0);
    static unsigned char seen[1000];
    klce_parallel_for(1000, KLCE_MAX_THREADS, count_one, seen);
    for (int i = 0; i < 1000; i++)
        CHECK(seen[i] == 1);
}

static void test_threads_refused(void) { run_in_child(use_pool_without_memory); }
#endif

#define RUN(test) (test(), printf("ok %s\n", #test), fflush(stdout))

int main(void)
{
    RUN(test_lazy_start);
    RUN(test_each_index_once);
    RUN(test_who_takes_part);
    RUN(test_nested);
    RUN(test_concurrent_callers);
    RUN(test_waits_for_slow_worker);
    RUN(test_idle_workers_sleep);
    RUN(test_settings);
#ifdef TEST_LINUX
    RUN(test_affinity);
    RUN(test_workers_keep_affinity);
    RUN(test_cgroup_quota);
#endif
#ifdef TEST_FORK
    RUN(test_fork_after_use);
    RUN(test_fork_during_loop);
    RUN(test_threads_refused);
#endif
    return 0;
}
