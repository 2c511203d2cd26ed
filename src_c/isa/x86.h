/* What an x86-64 stub asks of the processor and of the operating system. */
#include <cpuid.h>
#include <stdint.h>

/* Bits of leaf 7's ebx and leaf 1's ecx; of XCR0, the states that the system saves. */
enum {
    KLCE_CPU_FMA = 1 << 12,
    KLCE_CPU_OSXSAVE = 1 << 27,
    KLCE_CPU_F16C = 1 << 29,
    KLCE_CPU_AVX2 = 1 << 5,
    KLCE_CPU_AVX512F = 1 << 16,
    KLCE_CPU_AVX512DQ = 1 << 17,
    KLCE_CPU_AVX512BW = 1 << 30,
    KLCE_CPU_AVX512VL = INT32_MIN, /* 1 << 31 */
    KLCE_XMM_YMM = 0x6,
    KLCE_ZMM = 0xe0
};

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

/* 0 where the system does not use xsave: then no wide register survives a switch of threads. */
static inline uint32_t klce_saved_states(void)
{
    uint32_t low, high;
    if (!(klce_leaf1_ecx() & KLCE_CPU_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}
