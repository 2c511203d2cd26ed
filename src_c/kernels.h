/* All kernels of one ISA: the bodies once per dtype, and the table that dispatch.c picks from.
 * An ISA's stub defines KLCE_THIS_ISA, KLCE_VECTOR_BYTES and supported(), sets the compiler's
 * target and includes this once.
 */
#include "klce.h"
#include "simd.h"
#include "vmath.h"

#define KLCE_PASTE_(a, b) a##_##b
#define KLCE_PASTE(a, b) KLCE_PASTE_(a, b)
#define KLCE_STRING_(a) #a
#define KLCE_STRING(a) KLCE_STRING_(a)
#define KLCE_LESSER(a, b) ((a) < (b) ? (a) : (b))

/* Within a body, K(verb) is verb_f32 or verb_f64, of the dtype at hand.  The sizes that decide
 * the order of sums are the same for every ISA, so that all agree bit for bit. */
#define K(name) KLCE_PASTE(name, R)
#define WIDTH K(KLCE_WIDTH)
#define LANES ((int)(128 / sizeof(real))) /* a group: element i belongs to lane i % LANES */
#define VECTORS (LANES / WIDTH)           /* of a group, on this ISA */
#define DOUBLES (LANES / KLCE_WIDTH_f64)  /* vectors that hold a group as doubles */
#define BLOCK                                                                                      \
    ((ptrdiff_t)(8192 / sizeof(real)))   /* elements that stay in L1 from one look to the next */
#define FLUSH ((ptrdiff_t)(8 * LANES))   /* elements summed before they go to the lanes */
#define FIELD(name) (KLCE_TILE * K(name))/* where a state's field begins */
#define EACH_VECTOR(v) KLCE_UNROLL for (int v = 0; v < VECTORS; v++)

#define R f32
#define KLCE_REAL_IS_F64 0
#define real float
#include "bodies.h"
#undef R
#undef real
#undef KLCE_REAL_IS_F64

#define R f64
#define KLCE_REAL_IS_F64 1
#define real double
#include "bodies.h"
#undef R
#undef real
#undef KLCE_REAL_IS_F64

const klce_isa KLCE_PASTE(klce_isa, KLCE_THIS_ISA) = {
    .name = KLCE_STRING(KLCE_THIS_ISA),
    .vector_bytes = KLCE_VECTOR_BYTES,
    .supported = supported,
    .kernels =
        {
#define KLCE_DTYPE(name, type) [KLCE_DTYPE_##name] = kernels_##name,
#include "dtypes.def"
#undef KLCE_DTYPE
        },
};
