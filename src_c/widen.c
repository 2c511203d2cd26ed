/* A tile of rows of few 16-bit classes, as float32, is what float32's kernel takes: the same
 * operations on the same values, so the same bits as by the kernel of the elements themselves, and
 * nothing of either is compiled twice. */
#include "widen.h"

enum {
    VECTORS = 2, /* operands with classes; an op with more of them is left to its passes */
    ROOM = KLCE_TILE * KLCE_FEW_BYTES
};

/* An operand with classes: where a tile of it is in memory, and as float32. */
typedef struct {
    char *elems;
    ptrdiff_t step;
    float *wide;
} tile;

/* Row by row, or at once where the rows follow one another. */
static void convert(const klce_call *call, const tile *t, int widening)
{
    const klce_isa *isa = klce_active_isa();
    ptrdiff_t n = call->n, rows = KLCE_TILE;
    if (t->step == n * (ptrdiff_t)klce_elem_sizes[call->dtype]) {
        n *= rows;
        rows = 1;
    }
    for (ptrdiff_t i = 0; i < rows; i++)
        if (widening)
            isa->widen[call->dtype](t->elems + i * t->step, t->wide + i * n, n);
        else
            isa->narrow[call->dtype](t->wide + i * n, t->elems + i * t->step, n);
}

ptrdiff_t klce_run_few_widened(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    const klce_kernel *kernel = klce_active_isa()->kernels[KLCE_DTYPE_f32][call->op];
    klce_call wide = *call;
    float room[VECTORS][ROOM / sizeof(float)];
    tile tiles[VECTORS];
    ptrdiff_t from_tile_to_tile[KLCE_MAX_ARGS];
    int operands = 0, count = 0, inputs = 0;

    if (!kernel->few)
        return low;
    wide.dtype = KLCE_DTYPE_f32;
    for (const char *letter = klce_op_signatures[call->op]; *letter; letter++) {
        if (*letter == '>') {
            inputs = count;
            continue;
        }
        int k = operands++;
        wide.arg[k] += low * call->step[k];
        from_tile_to_tile[k] = KLCE_TILE * call->step[k];
        if (*letter == 'v') {
            if (count == VECTORS)
                return low;
            tiles[count] = (tile){wide.arg[k], call->step[k], room[count]};
            wide.arg[k] = (char *)room[count++];
            wide.step[k] = call->n * (ptrdiff_t)sizeof(float);
            wide.core[k] = sizeof(float);
            from_tile_to_tile[k] = 0;
        }
    }
    if (wide.mask)
        wide.mask += low * wide.mask_step;

    /* The kernel sees row 0 of many: where its loads go on beyond the tile, they stay within
     * `room`, since rows that short leave most of it. */
    for (; low + KLCE_TILE <= high; low += KLCE_TILE) {
        for (int i = 0; i < inputs; i++)
            convert(call, &tiles[i], 1);
        kernel->few(&wide, 0);
        for (int i = inputs; i < count; i++)
            convert(call, &tiles[i], 0);
        for (int i = 0; i < count; i++)
            tiles[i].elems += KLCE_TILE * tiles[i].step;
        for (int k = 0; k < operands; k++)
            wide.arg[k] += from_tile_to_tile[k];
        if (wide.mask)
            wide.mask += KLCE_TILE * wide.mask_step;
    }
    return low;
}
