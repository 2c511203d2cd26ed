/* sched_getaffinity and CPU_ALLOC are GNU extensions. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "cpus.h"

#include <stdatomic.h>

/* ---- The CPUs of this process ---- */

#ifdef KLCE_NO_THREADS

int klce_cpu_count(void) { return 1; }

int klce_cgroup_cpus(const char *membership, const char *mount)
{
    (void)membership, (void)mount;
    return 0;
}

#else

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The two numbers of a quota in one cgroup directory, as whole CPUs; 0 if there is no limit. */
static int quota_cpus(const char *directory, bool unified)
{
    static const char *const files[2][2] = {{"cpu.cfs_quota_us", "cpu.cfs_period_us"}, {"cpu.max"}};
    long long numbers[2] = {0, 0}; /* quota and period; "max" and -1 stand for no quota */
    int found = 0;
    for (int i = 0; i < 2 && files[unified][i]; i++) {
        char path[PATH_MAX];
        int length = snprintf(path, sizeof path, "%s/%s", directory, files[unified][i]);
        if (length < 0 || (size_t)length >= sizeof path)
            return 0;
        FILE *file = fopen(path, "r");
        if (file == NULL)
            return 0;
        while (found < 2 && fscanf(file, "%lld", &numbers[found]) == 1)
            found++;
        fclose(file);
    }
    if (found < 2 || numbers[0] <= 0 || numbers[1] <= 0)
        return 0;
    long long cpus = (numbers[0] - 1) / numbers[1] + 1;
    return cpus < INT_MAX ? (int)cpus : INT_MAX;
}

static int tighter(int a, int b) { return a == 0 || (b != 0 && b < a) ? b : a; }

/* Every ancestor's quota binds too. In a container the path may be the host's, of which only the
 * root exists here: going up finds that one. */
static int hierarchy_cpus(const char *root, const char *group, bool unified)
{
    char directory[PATH_MAX];
    int length = snprintf(directory, sizeof directory, "%s%s", root, group);
    if (length < 0 || (size_t)length >= sizeof directory)
        return 0;
    char *end = directory + strlen(root);
    int cpus = 0;
    for (;;) {
        cpus = tighter(cpus, quota_cpus(directory, unified));
        char *slash = strrchr(end, '/');
        if (slash == NULL)
            return cpus;
        *slash = '\0';
    }
}

int klce_cgroup_cpus(const char *membership, const char *mount)
{
    FILE *file = fopen(membership, "r");
    if (file == NULL)
        return 0;
    int cpus = 0;
    char line[PATH_MAX];
    while (fgets(line, sizeof line, file)) { /* "4:cpu,cpuacct:/group" or, for v2, "0::/group" */
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *group++ = '\0';
        if (*++controllers == '\0')
            cpus = tighter(cpus, hierarchy_cpus(mount, group, true));
        char *rest = NULL;
        for (char *name = strtok_r(controllers, ",", &rest); name;
             name = strtok_r(NULL, ",", &rest)) {
            char root[PATH_MAX];
            int length = snprintf(root, sizeof root, "%s/cpu", mount);
            if (strcmp(name, "cpu") == 0 && length > 0 && (size_t)length < sizeof root)
                cpus = tighter(cpus, hierarchy_cpus(root, group, false));
        }
    }
    fclose(file);
    return cpus;
}

static int affinity_cpus(void)
{
#if defined(__linux__)
    /* The kernel refuses a set smaller than its own, which may be beyond the 1024 of cpu_set_t. */
    for (int capacity = CPU_SETSIZE; capacity <= 1 << 20; capacity *= 2) {
        cpu_set_t *set = CPU_ALLOC(capacity);
        if (set == NULL)
            break;
        size_t size = CPU_ALLOC_SIZE(capacity);
        int failed = sched_getaffinity(0, size, set) != 0 ? errno : 0;
        int cpus = failed ? 0 : CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (cpus > 0)
            return cpus;
        if (failed != EINVAL)
            break;
    }
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

int klce_cpu_count(void)
{
    return tighter(affinity_cpus(), klce_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup"));
}

#endif

/* ---- Settings ---- */

static atomic_int global_threads;   /* 0: not set */
static atomic_int detected_threads; /* 0: not asked for yet */
static KLCE_THREAD_LOCAL int thread_override;

int klce_default_threads(void)
{
    int n = detected_threads;
    if (n == 0)
        detected_threads = n = klce_cpu_count();
    return n;
}

int klce_get_num_threads(void)
{
    int n = thread_override;
    if (n == 0)
        n = global_threads;
    if (n == 0)
        n = klce_default_threads();
    return n < KLCE_MAX_THREADS ? n : KLCE_MAX_THREADS;
}

void klce_set_num_threads(int n) { global_threads = n > 1 ? n : 1; }

int klce_set_thread_override(int n)
{
    int previous = thread_override;
    thread_override = n > 0 ? n : 0;
    return previous;
}
