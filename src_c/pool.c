/* The affinity of threads is a GNU extension; syscall() is hidden by -std=c11. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "pool.h"
#include "cpus.h"

#include <stdbool.h>
#ifndef KLCE_NO_THREADS
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__) && !defined(KLCE_NO_FUTEX)
#define USE_FUTEX
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#endif

/* ---- Running inline ---- */

/* A task that starts a loop of its own must not find the pool free and spread out after all: its
 * caller was told to run on one thread, or lost the pool to another caller. */
static KLCE_THREAD_LOCAL bool inside_task;

static void run_inline(ptrdiff_t count, klce_task task, void *context)
{
    bool outer = inside_task;
    inside_task = true;
    for (ptrdiff_t i = 0; i < count; i++)
        task(context, i);
    inside_task = outer;
}

#ifdef KLCE_NO_THREADS

void klce_parallel_for(ptrdiff_t count, int max_threads, klce_task task, void *context)
{
    (void)max_threads;
    run_inline(count, task, context);
}

#else

/* ---- The pool ---- */

/* All coordination goes through one word, the gate: the number of seats still free in the running
 * loop in its upper half, the number of workers seated in its lower half. A worker takes a seat by
 * one compare-and-swap, and only a seated worker touches the loop. Whoever finds no index left
 * closes the gate, so that the caller waits for workers still in a task but never for one that is
 * slow to wake up. */
enum { SEAT = 1 << 16, SEATED = SEAT - 1, SEATS = 0x7fff0000 };
_Static_assert(KLCE_MAX_THREADS <= SEATED >> 1, "seats and seated workers share a word");

/* Waking a sleeper takes about this long, so waiting longer than this awake cannot pay. */
enum { SPIN_NS = 50000 };

/* Of so few workers each one counts: see wake_elsewhere(). */
enum { SMALL_TEAM = 7 };

enum { WORKER_STACK = 1 << 20, LINE = 128 };

static struct {
    /* On a line of its own: polled by idle workers, and fought over by busy ones. */
    _Alignas(LINE) atomic_uint gate;
    _Alignas(LINE) atomic_uint caller_sleeps;
    atomic_int sleepers; /* workers asleep, or about to be */
    atomic_bool busy;    /* a caller holds the pool, and alone writes what follows */
    int workers;
    pthread_t team[SMALL_TEAM]; /* the first workers */
    size_t count, shares;
    klce_task task;
    void *context;
} pool;

/* Each thread has a share of the indices, so that what it leaves in its core's caches is what the
 * next loop over the same rows gives it, while there are as many workers as loops ask for; then it
 * helps with the others'. */
static struct {
    _Alignas(LINE) atomic_size_t next; /* the next index to hand out */
} share[KLCE_MAX_THREADS];

static size_t share_start(size_t number)
{
    size_t extra = pool.count % pool.shares;
    return pool.count / pool.shares * number + (number < extra ? number : extra);
}

/* Sleeps unless *word differs from `seen`; may return early. wake() rouses up to n sleepers. */
#ifdef USE_FUTEX
static void sleep_on(atomic_uint *word, unsigned seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void wake(atomic_uint *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}
#else
static pthread_mutex_t sleep_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t workers_cond = PTHREAD_COND_INITIALIZER;
static pthread_cond_t caller_cond = PTHREAD_COND_INITIALIZER;

static pthread_cond_t *cond_of(const atomic_uint *word)
{
    return word == &pool.gate ? &workers_cond : &caller_cond;
}

static void sleep_on(atomic_uint *word, unsigned seen)
{
    pthread_mutex_lock(&sleep_mutex);
    if (atomic_load(word) == seen)
        pthread_cond_wait(cond_of(word), &sleep_mutex);
    pthread_mutex_unlock(&sleep_mutex);
}

static void wake(atomic_uint *word, int n)
{
    pthread_mutex_lock(&sleep_mutex);
    while (n-- > 0)
        pthread_cond_signal(cond_of(word));
    pthread_mutex_unlock(&sleep_mutex);
}
#endif

static void relax_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* `yield` is a no-op on most cores */
#endif
}

/* A store that is followed by a load on which it hangs whether a sleeper is woken.  By exchange: to
 * the language a store would do, but qemu 7.2 lets the load of an emulated aarch64 overtake it. */
static void exchange(atomic_uint *word, unsigned value) { (void)atomic_exchange(word, value); }

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Reads the gate until (gate & mask) is non-zero, or zero, as wanted; gives up after SPIN_NS, or at
 * once when not allowed to spin. Returns what it read last. */
static unsigned poll_gate(unsigned mask, bool wanted, bool spin)
{
    unsigned gate = atomic_load(&pool.gate);
    for (int64_t deadline = 0; spin && ((gate & mask) != 0) != wanted;) {
        int64_t now = now_ns();
        if (deadline == 0)
            deadline = now + SPIN_NS;
        else if (now > deadline)
            break;
        for (int i = 0; i < 16 && ((gate & mask) != 0) != wanted; i++) {
            relax_cpu();
            gate = atomic_load(&pool.gate);
        }
    }
    return gate;
}

/* Works off the running loop until no index is left, and closes the gate. */
static void run_seated(size_t number)
{
    const size_t shares = pool.shares;
    const klce_task task = pool.task;
    void *const context = pool.context;
    for (size_t k = 0; k < shares; k++) {
        const size_t own = (number + k) % shares, end = share_start(own + 1);
        atomic_size_t *next = &share[own].next;
        size_t i = atomic_load_explicit(next, memory_order_relaxed);
        if (i >= end) /* known without taking the line from the others */
            continue;
        while ((i = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < end)
            task(context, (ptrdiff_t)i);
    }
    atomic_fetch_and(&pool.gate, ~(unsigned)SEATS);
}

static void take_seat(bool spin)
{
    for (;;) {
        unsigned gate = poll_gate(SEATS, true, spin);
        while (gate & SEATS)
            if (atomic_compare_exchange_weak(&pool.gate, &gate, gate - SEAT + 1))
                return;
        /* sleep_on() looks at the gate after this, and open_gate() at `sleepers` after it has set
         * the gate: one of the two sees the other, and no wake-up is lost. */
        atomic_fetch_add(&pool.sleepers, 1);
        sleep_on(&pool.gate, gate);
        atomic_fetch_sub(&pool.sleepers, 1);
    }
}

static void *worker_main(void *number)
{
    /* More threads than CPUs: a spinning worker would keep a working one off its CPU. */
    const bool spin = (intptr_t)number < klce_default_threads();
    inside_task = true;
    for (;;) {
        take_seat(spin);
        run_seated((size_t)(intptr_t)number);
        /* The last to leave finds only itself at the closed gate. */
        if (atomic_fetch_sub(&pool.gate, 1) == 1 && atomic_exchange(&pool.caller_sleeps, 0))
            wake(&pool.caller_sleeps, 1);
    }
    return NULL;
}

/* The workers did not survive the fork, nor did a caller that held the pool, unless it is the one
 * that forked and then it was not inside a loop. */
static void reset_after_fork(void)
{
    atomic_store(&pool.gate, 0);
    atomic_store(&pool.caller_sleeps, 0);
    atomic_store(&pool.sleepers, 0);
    pool.workers = 0;
#ifndef USE_FUTEX
    pthread_mutex_init(&sleep_mutex, NULL);
    pthread_cond_init(&workers_cond, NULL);
    pthread_cond_init(&caller_cond, NULL);
#endif
    atomic_store(&pool.busy, false);
}

static void register_fork_handler(void) { pthread_atfork(NULL, NULL, reset_after_fork); }

/* Adds workers until there are `wanted`, or no more can be had. */
static void grow(int wanted)
{
    pthread_attr_t attributes;
    if (pool.workers >= wanted || pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, WORKER_STACK);
    /* Workers inherit the mask: signals go to the host's threads. Faults stay open, for a blocked
     * one would kill the process without the host's handler having its say. */
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t blocked, callers;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &callers);
    while (pool.workers < wanted) {
        pthread_t thread;
        /* Number 0 is the caller. */
        void *number = (void *)(intptr_t)(pool.workers + 1);
        if (pthread_create(&thread, &attributes, worker_main, number) != 0)
            break;
        if (pool.workers < SMALL_TEAM)
            pool.team[pool.workers] = thread;
        pool.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &callers, NULL);
    pthread_attr_destroy(&attributes);
}

/* Wakes n workers. Kernels have been seen to put the woken worker of a team of two on the caller's
 * CPU, next to an idle one, and to leave it there for milliseconds. A CPU is chosen within wake(),
 * so forbidding the caller's for that moment is enough, and each worker keeps the affinity it had.
 */
static void wake_elsewhere(int seats, int n)
{
#if defined(__linux__)
    cpu_set_t allowed[SMALL_TEAM], others;
    int cpu = sched_getcpu(), moved = 0;
    if (cpu >= 0 && cpu < CPU_SETSIZE && seats <= SMALL_TEAM && seats < klce_default_threads())
        for (; moved < seats; moved++) {
            if (pthread_getaffinity_np(pool.team[moved], sizeof others, &others) != 0)
                break;
            allowed[moved] = others;
            CPU_CLR((size_t)cpu, &others);
            if (pthread_setaffinity_np(pool.team[moved], sizeof others, &others) != 0)
                break; /* also when no CPU would be left */
        }
    wake(&pool.gate, n);
    while (moved-- > 0)
        pthread_setaffinity_np(pool.team[moved], sizeof *allowed, &allowed[moved]);
#else
    (void)seats;
    wake(&pool.gate, n);
#endif
}

static void open_gate(int seats)
{
    exchange(&pool.gate, (unsigned)seats * SEAT);
    int sleepers = atomic_load(&pool.sleepers);
    int missing = seats - (pool.workers - sleepers); /* workers awake come by themselves */
    if (sleepers > 0 && missing > 0)
        wake_elsewhere(seats, missing);
}

static void wait_until_empty(bool spin)
{
    unsigned gate = poll_gate(SEATED, false, spin);
    while (gate & SEATED) {
        exchange(&pool.caller_sleeps, 1);
        if (atomic_load(&pool.gate) & SEATED)
            sleep_on(&pool.caller_sleeps, 1);
        gate = atomic_load(&pool.gate);
    }
}

void klce_parallel_for(ptrdiff_t count, int max_threads, klce_task task, void *context)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int threads = max_threads > 0 ? max_threads : klce_get_num_threads();
    if (threads > KLCE_MAX_THREADS)
        threads = KLCE_MAX_THREADS;
    if (threads > count)
        threads = (int)count;
    if (threads <= 1 || inside_task) {
        run_inline(count, task, context);
        return;
    }
    pthread_once(&once, register_fork_handler); /* before `busy` can be inherited */
    if (atomic_exchange(&pool.busy, true)) {
        run_inline(count, task, context);
        return;
    }
    grow(threads - 1);
    pool.count = (size_t)count;
    pool.task = task;
    pool.context = context;
    pool.shares = (size_t)threads;
    for (size_t i = 0; i < pool.shares; i++)
        atomic_store_explicit(&share[i].next, share_start(i), memory_order_relaxed);
    inside_task = true;
    open_gate(threads - 1 < pool.workers ? threads - 1 : pool.workers);
    run_seated(0);
    wait_until_empty(threads <= klce_default_threads());
    inside_task = false;
    atomic_store(&pool.busy, false);
}

#endif
