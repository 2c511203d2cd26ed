/* What an x86-64 stub asks of the processor and of the operating system. */
#include <cpuid.h>
#include <stdint.h>

/* Bits of leaf 1's ecx, */
#define KLCE_CPU_FMA (1u << 12)
#define KLCE_CPU_OSXSAVE (1u << 27)
#define KLCE_CPU_F16C (1u << 29)
/* of leaf 7's ebx, */
#define KLCE_CPU_AVX2 (1u << 5)
#define KLCE_CPU_AVX512F (1u << 16)
#define KLCE_CPU_AVX512DQ (1u << 17)
#define KLCE_CPU_AVX512BW (1u << 30)
#define KLCE_CPU_AVX512VL (1u << 31)
/* of its edx, */
#define KLCE_CPU_AVX512FP16 (1u << 23)
/* and of XCR0: the states that the system saves. */
#define KLCE_XMM_YMM 0x6u
#define KLCE_ZMM 0xe0u

static inline int klce_is_intel(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx;
}

static inline uint32_t klce_leaf1_ecx(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) ? c : 0;
}

static inline uint32_t klce_leaf7_ebx(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) ? b : 0;
}

static inline uint32_t klce_leaf7_edx(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) ? d : 0;
}

/* 0 where the system does not use xsave: then no wide register survives a switch of threads. */
static inline uint32_t klce_saved_states(void)
{
    uint32_t low, high;
    if (!(klce_leaf1_ecx() & KLCE_CPU_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}
