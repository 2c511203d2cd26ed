/* How a call's operands lie, and where those are packed that no kernel takes as they lie. */
#ifndef KLCE_LAYOUT_H
#define KLCE_LAYOUT_H

#include "klce.h"

/* An op's operands, from its signature: the letter of each, what it holds where it is masked (see
 * ops.def), and where the outputs begin. */
typedef struct {
    int count, outputs_from;
    char letter[KLCE_MAX_ARGS], fill[KLCE_MAX_ARGS];
} klce_operands;
klce_operands klce_operands_of(klce_op op);

/* Bytes of operand k's element, if it has classes. */
ptrdiff_t klce_size_of(const klce_call *call, const klce_operands *o, int k);

/* Whether operand k has classes that do not follow one another: one value for all of them is left
 * alone. */
int klce_is_strided(const klce_call *call, const klce_operands *o, int k);

/* Whether a row has so few classes that it shares vectors with its neighbours. */
int klce_has_few_classes(const klce_call *call);

/* How rows reach the kernel: as they are, their classes together; as they are, few classes side by
 * side, or many; through scratch memory, the classes of a row together or a class of several
 * rows. */
typedef enum {
    KLCE_TOGETHER,
    KLCE_SIDE_BY_SIDE,
    KLCE_MANY_SIDE_BY_SIDE,
    KLCE_PACKED_TOGETHER,
    KLCE_PACKED_SIDE_BY_SIDE
} klce_layout;

/* Of a call that the kernel has prepared; of any, whether it is KLCE_TOGETHER. */
klce_layout klce_layout_of(const klce_call *call, const klce_operands *o, const klce_isa *isa);
int klce_lie_together(const klce_call *call, const klce_operands *o);

/* Where some rows' operands are packed, in one piece of scratch memory. */
enum { KLCE_ALIGNMENT = 64 };
typedef struct {
    ptrdiff_t bytes; /* of that piece, with what it takes to begin at a multiple of the alignment */
    struct {
        int is_packed, is_masked, is_strip;
        ptrdiff_t offset, step, core, rows; /* the rows that differ: one may serve all */
    } operand[KLCE_MAX_ARGS];
} klce_packing;
klce_packing klce_packing_of(const klce_call *call, const klce_operands *o, ptrdiff_t rows,
                             klce_layout into);

#endif
