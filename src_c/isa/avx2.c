/* AVX2 with FMA and F16C: 256-bit vectors. */
#include "../klce.h"
#if KLCE_HAS_X86_VECTORS
#define KLCE_THIS_ISA avx2
#define KLCE_VECTOR_BYTES 32

#include "x86.h"

/* Compiled before the target is set: this must run on any x86-64. */
static int supported(void)
{
    uint32_t need1 = KLCE_CPU_FMA | KLCE_CPU_F16C, need7 = KLCE_CPU_AVX2;
    uint32_t need_saved = KLCE_XMM_YMM;
    return (klce_leaf1_ecx() & need1) == need1 && (klce_leaf7_ebx() & need7) == need7 &&
           (klce_saved_states() & need_saved) == need_saved;
}

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#include "../kernels.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
