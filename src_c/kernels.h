/* All kernels of one ISA: the bodies once per dtype, and the table that dispatch.c picks from.
 * An ISA's stub defines KLCE_THIS_ISA, KLCE_VECTOR_BYTES and supported(), sets the compiler's
 * target and includes this once.
 */
#include "klce.h"

#include <stdlib.h>

#include "simd.h"
#include "columns.h"
#include "vmath.h"
#include "twofold.h"
#include "quad.h"
#include "halves.h"
#include "vocabulary.h"

#define KLCE_PASTE_(a, b) a##_##b
#define KLCE_PASTE(a, b) KLCE_PASTE_(a, b)
#define KLCE_STRING_(a) #a
#define KLCE_STRING(a) KLCE_STRING_(a)
#define KLCE_LESSER(a, b) ((a) < (b) ? (a) : (b))

/* Whether a gather costs no more than its loads: said by an ISA's stub, if it has gathers. */
#ifndef KLCE_QUICK_GATHERS
#define KLCE_QUICK_GATHERS 0
#endif

/* Within a body, K(verb) is verb_R, of the dtype R at hand, and V(verb) is verb_C, of the type C
 * that it is computed in: K(load) takes elements, V(load) what a body itself has stored.  They
 * differ for 16-bit elements alone, whose vocabulary is that of float32: K(max), too, is max_f32
 * then.  The sizes that decide the order of sums are the same for every ISA, so that all agree bit
 * for bit. */
#define KLCE_SECOND_(a, b, ...) b
#define KLCE_SECOND(...) KLCE_SECOND_(__VA_ARGS__)
#define K(name) KLCE_PASTE(name, KLCE_SECOND(KLCE_IN_VOCABULARY_##name, R, ~))
#define V(name) KLCE_PASTE(name, C)
/* A kernel's function for rows of few classes: none of 16-bit elements,
 * which are widened (widen.c). */
#define TILE_OF(name) (sizeof(elem) == sizeof(real) ? K(name) : NULL)
/* A function that sees no element, for a table: 16-bit ones have that of float32. */
#define SHARED(name) (sizeof(elem) == sizeof(real) ? K(name) : V(name))
#define WIDTH K(KLCE_WIDTH)
#define LANES ((int)(128 / sizeof(real))) /* a group: element i belongs to lane i % LANES */
#define FEW FLUSH                         /* classes, at most, of rows that lie side by side */
/* Exponentials of rows of few classes go to as many lanes, and those to float64 after as many
 * classes: a lane holds two, so that one which leads the sum costs it one rounding.  Of the eight
 * of a longer row seven may be lost beside it, up to 12 units of the last place. */
#define EXP_LANES 16
#define EXP_FLUSH 32
#define VECTORS (LANES / WIDTH)                                    /* of a group, on this ISA */
#define GROUPS (VECTORS < KLCE_BESIDE ? KLCE_BESIDE / VECTORS : 1) /* taken at once */
#define DOUBLES (LANES / KLCE_WIDTH_f64) /* vectors that hold a group as doubles */
/* Elements of a row whose maximum is known before they are summed. */
#define BLOCK ((ptrdiff_t)(8192 / sizeof(real)))
#define FLUSH ((ptrdiff_t)(8 * LANES))   /* elements summed before they go to the lanes */
#define FIELD(name) (KLCE_TILE * K(name))/* where a state's field begins */
#define LAST_FIELD(name)                                                                           \
    _Static_assert(FIELD(name) < KLCE_TILE * KLCE_FIELDS, "a state has room for its fields")
#define EACH_VECTOR(v) KLCE_UNROLL for (int v = 0; v < VECTORS; v++)

/* Of a width beyond 64 bytes a tile would be less than a vector. */
_Static_assert(KLCE_TILE % KLCE_WIDTH_f32 == 0, "a tile is whole vectors");
_Static_assert(KLCE_SUM_CHUNK % 8 == 0, "a chunk of results is whole rounds of its chains");

#define R f32
#define elem float
#define KLCE_ELEM_BITS 32
#include "bodies.h"

#define R f64
#define elem double
#define KLCE_ELEM_BITS 64
#include "bodies.h"

#define R f16
#define elem klce_f16
#define KLCE_ELEM_BITS 16
#include "bodies.h"

#define R bf16
#define elem klce_bf16
#define KLCE_ELEM_BITS 16
#include "bodies.h"

#define KLCE_DTYPE(name, elem, real)                                                               \
    _Static_assert(ELEM_BYTES_##name == sizeof(elem) && REAL_BYTES_##name == sizeof(real),         \
                   "bodies.h and dtypes.def agree on a dtype");
#include "dtypes.def"
#undef KLCE_DTYPE

const klce_isa KLCE_PASTE(klce_isa, KLCE_THIS_ISA) = {
    .name = KLCE_STRING(KLCE_THIS_ISA),
    .vector_bytes = KLCE_VECTOR_BYTES,
    .supported = supported,
    .kernels =
        {
#define KLCE_DTYPE(name, elem, real) [KLCE_DTYPE_##name] = kernels_##name,
#include "dtypes.def"
#undef KLCE_DTYPE
        },
    .widen =
        {
#define KLCE_DTYPE(name, elem, real)                                                               \
    [KLCE_DTYPE_##name] = sizeof(elem) == sizeof(real) ? NULL : widen_##name,
#include "dtypes.def"
#undef KLCE_DTYPE
        },
    .sum_chunks =
        {
#define KLCE_DTYPE(name, elem, real)                                                               \
    [KLCE_DTYPE_##name] = sizeof(elem) == sizeof(real) ? sum_chunks_##name : NULL,
#include "dtypes.def"
#undef KLCE_DTYPE
        },
    .narrow =
        {
#define KLCE_DTYPE(name, elem, real)                                                               \
    [KLCE_DTYPE_##name] = sizeof(elem) == sizeof(real) ? NULL : narrow_##name,
#include "dtypes.def"
#undef KLCE_DTYPE
        },
};
