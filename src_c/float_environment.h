/* The floating-point environment of a kernel: round to nearest, subnormals kept, no traps.  The
 * caller's is restored afterwards with its exception flags, so that no flag of ours is reported,
 * on whichever thread it rose, and no flush-to-zero of the host program's changes a result. */
#ifndef KLCE_FLOAT_ENVIRONMENT_H
#define KLCE_FLOAT_ENVIRONMENT_H

#if defined(__x86_64__) && defined(__GNUC__)
#include <xmmintrin.h>
typedef unsigned klce_environment;
static inline klce_environment klce_enter(void)
{
    klce_environment saved = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return saved;
}
static inline void klce_leave(klce_environment saved) { _mm_setcsr(saved); }

#elif defined(__aarch64__) && defined(__GNUC__)
#include <stdint.h>
typedef struct {
    uint64_t control, status;
} klce_environment;
static inline klce_environment klce_enter(void)
{
    klce_environment saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved.control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(saved.status));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return saved;
}
static inline void klce_leave(klce_environment saved)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(saved.control));
    __asm__ volatile("msr fpsr, %0" : : "r"(saved.status));
}

#else
#include <fenv.h>
typedef fenv_t klce_environment;
static inline klce_environment klce_enter(void)
{
    klce_environment saved;
    fegetenv(&saved);
    fesetenv(FE_DFL_ENV);
    return saved;
}
static inline void klce_leave(klce_environment saved) { fesetenv(&saved); }
#endif

#endif
