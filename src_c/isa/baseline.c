/* The ISA that every machine of the platform has: SSE2, NEON, or plain scalars elsewhere (and
 * wherever the compiler has no vector extensions, or KLCE_FORCE_WIDTH1 is defined). */
#define KLCE_THIS_ISA baseline

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && __has_builtin(__builtin_convertvector)
#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(KLCE_FORCE_WIDTH1)
#define KLCE_VECTOR_BYTES 16
#endif
#endif
#endif
#ifndef KLCE_VECTOR_BYTES
#define KLCE_VECTOR_BYTES 0
#endif

static int supported(void) { return 1; }

#include "../kernels.h"
