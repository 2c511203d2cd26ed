/* AVX-512 F, DQ, BW and VL: 512-bit vectors. */
#include "../klce.h"
#if KLCE_HAS_X86_VECTORS
#define KLCE_THIS_ISA avx512
#define KLCE_VECTOR_BYTES 64

#include "x86.h"

/* Whether a gather costs no more than its loads: so it does on Intel's processors from Sapphire
 * Rapids on, the first with 16-bit arithmetic.  On AMD's, and on older ones, whose gathers are
 * slowed down for safety's sake, loads one by one are faster.  Kept by supported(), since a virtual
 * machine takes microseconds to tell.  tests/c/run has a build that gathers on any of them. */
static atomic_int quick_gathers;
#ifndef KLCE_QUICK_GATHERS
#define KLCE_QUICK_GATHERS atomic_load_explicit(&quick_gathers, memory_order_relaxed)
#endif

/* Compiled before the target is set: this must run on any x86-64. */
static int supported(void)
{
    uint32_t need1 = KLCE_CPU_FMA | KLCE_CPU_F16C;
    uint32_t need7 = KLCE_CPU_AVX2 | KLCE_CPU_AVX512F | KLCE_CPU_AVX512DQ | KLCE_CPU_AVX512BW |
                     KLCE_CPU_AVX512VL;
    uint32_t need_saved = KLCE_XMM_YMM | KLCE_ZMM;
    quick_gathers = klce_is_intel() && (klce_leaf7_edx() & KLCE_CPU_AVX512FP16);
    return (klce_leaf1_ecx() & need1) == need1 && (klce_leaf7_ebx() & need7) == need7 &&
           (klce_saved_states() & need_saved) == need_saved;
}

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c"))),                   \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")
#endif

#include "../kernels.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
