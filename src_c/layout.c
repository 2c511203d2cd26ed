/* How operands lie, by the letters of the op's signature and the steps of the call. */
#include "layout.h"

#include "pack.h"
#include "widen.h"

/* Classes, at most, that are read where they lie side by side. */
enum { STREAMS = 32 };

static int is_vector(char letter) { return letter == 'v' || letter == 'e'; }

klce_operands klce_operands_of(klce_op op)
{
    klce_operands o = {0};
    const char *fill = klce_op_fills[op];
    for (const char *s = klce_op_signatures[op]; *s; s++) {
        if (*s == '>') {
            o.outputs_from = o.count;
            continue;
        }
        if (*fill && (*s == 'v' || *s == 'g'))
            o.fill[o.count] = *fill++;
        o.letter[o.count++] = *s;
    }
    return o;
}

ptrdiff_t klce_size_of(const klce_call *call, const klce_operands *o, int k)
{
    return (ptrdiff_t)(o->letter[k] == 'w' ? klce_real_sizes : klce_elem_sizes)[call->dtype];
}

int klce_is_strided(const klce_call *call, const klce_operands *o, int k)
{
    char letter = o->letter[k];
    ptrdiff_t core = call->core[k];
    return (is_vector(letter) || (letter == 'w' && core != 0)) && call->n > 1 &&
           core != klce_size_of(call, o, k);
}

int klce_has_few_classes(const klce_call *call)
{
    return call->n > 0 && call->n * (ptrdiff_t)klce_real_sizes[call->dtype] <= KLCE_FEW_BYTES;
}

static int is_masked(const klce_call *call, const klce_operands *o, int k)
{
    return call->mask && is_vector(o->letter[k]) && o->fill[k];
}

/* Whether the rows of operand k lie side by side. */
static int is_side_by_side(const klce_call *call, const klce_operands *o, int k)
{
    return klce_is_strided(call, o, k) && call->step[k] == klce_size_of(call, o, k);
}

static int takes_side_by_side(const klce_call *call, const klce_isa *isa)
{
    int widened = klce_elem_sizes[call->dtype] != klce_real_sizes[call->dtype];
    return klce_has_few_classes(call) && !call->few_together &&
           (widened ? klce_widens(call->op, isa)
                    : isa->kernels[call->dtype][call->op]->few != NULL);
}

/* Of more classes, if all operands with classes lie so. */
static int takes_abreast(const klce_call *call, const klce_operands *o, const klce_isa *isa)
{
    const klce_kernel *kernel = isa->kernels[call->dtype][call->op];
    int all = kernel->abreast && call->n <= kernel->most_abreast && !klce_has_few_classes(call) &&
              !call->mask && call->rows >= KLCE_ABREAST;
    for (int k = 0; k < o->count; k++)
        if (is_vector(o->letter[k]) || o->letter[k] == 'w')
            all &= is_side_by_side(call, o, k);
    return all;
}

int klce_lie_together(const klce_call *call, const klce_operands *o)
{
    for (int k = 0; k < o->count; k++)
        if (klce_is_strided(call, o, k) || is_masked(call, o, k))
            return 0;
    return 1;
}

/* Of a call that the kernel has prepared. */
klce_layout klce_layout_of(const klce_call *call, const klce_operands *o, const klce_isa *isa)
{
    int strided = 0, side_by_side = 0, masked = 0;
    if (klce_lie_together(call, o))
        return KLCE_TOGETHER;
    for (int k = 0; k < o->count; k++) {
        strided += klce_is_strided(call, o, k);
        side_by_side += is_side_by_side(call, o, k);
        masked += is_masked(call, o, k);
    }
    if (takes_abreast(call, o, isa))
        return KLCE_MANY_SIDE_BY_SIDE;
    if (!side_by_side || !takes_side_by_side(call, isa))
        return KLCE_PACKED_TOGETHER;
    return strided == side_by_side && !masked && call->n <= STREAMS ? KLCE_SIDE_BY_SIDE
                                                                    : KLCE_PACKED_SIDE_BY_SIDE;
}

klce_packing klce_packing_of(const klce_call *call, const klce_operands *o, ptrdiff_t rows,
                             klce_layout into)
{
    klce_packing p = {.bytes = KLCE_ALIGNMENT};
    for (int k = 0; k < o->count; k++) {
        ptrdiff_t size = klce_size_of(call, o, k);
        int masked = is_masked(call, o, k);
        int strip = into == KLCE_PACKED_SIDE_BY_SIDE && is_side_by_side(call, o, k);
        if (!masked && !klce_is_strided(call, o, k))
            continue;
        int one = call->step[k] == 0 && (!masked || call->mask_step == 0) && rows;
        p.operand[k].is_packed = 1;
        p.operand[k].is_masked = masked;
        p.operand[k].is_strip = strip;
        p.operand[k].offset = p.bytes - KLCE_ALIGNMENT;
        p.operand[k].rows = one ? 1 : rows;
        p.operand[k].step = strip ? size : klce_packed_step(call->n, (size_t)size);
        p.operand[k].core = strip ? klce_strip_core(rows * size) : size;
        p.bytes += strip ? call->n * p.operand[k].core : p.operand[k].rows * p.operand[k].step;
        p.bytes += -p.bytes & (KLCE_ALIGNMENT - 1);
    }
    return p;
}
