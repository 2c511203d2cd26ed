/* 16-bit elements as float32: whole arrays, and tiles.
 *
 * A tile of rows of few 16-bit classes, as float32, is what float32's kernel takes: the same
 * operations on the same values, so the same bits as by the kernel of the elements themselves, and
 * nothing of either is compiled twice. */
#include "widen.h"

#include "float_environment.h"
#include "layout.h"
#include "pool.h"

enum {
    WIDENED = 2, /* operands with classes; an op with more of them is left to its passes */
    ROOM = KLCE_TILE * KLCE_FEW_BYTES,
    CHUNK = 1 << 15 /* elements of an array that a thread takes */
};

/* An operand with classes: where a tile of it is in memory, and as float32.  It has `pieces` of
 * `length` elements that follow one another: rows, or where rows lie side by side, classes. */
typedef struct {
    char *elems;
    ptrdiff_t from_tile_to_tile, from_piece_to_piece;
    ptrdiff_t pieces, length;
    float *wide;
} tile;

/* Turns operand k of a call, whose elements are of `size` bytes, into one that is float32. */
static tile widened(klce_call *call, int k, ptrdiff_t size, float *wide)
{
    ptrdiff_t step = call->step[k], core = call->core[k], n = call->n;
    tile t = {call->arg[k], KLCE_TILE * step, step, KLCE_TILE, n, wide};
    call->arg[k] = (char *)wide;
    call->step[k] = n * (ptrdiff_t)sizeof *wide;
    call->core[k] = sizeof *wide;
    if (n > 1 && core != size) { /* side by side */
        t.from_piece_to_piece = core;
        t.pieces = n;
        t.length = KLCE_TILE;
        call->step[k] = sizeof *wide;
        call->core[k] = KLCE_TILE * sizeof *wide;
    } else if (step == n * size) {
        t.pieces = 1;
        t.length = n * KLCE_TILE;
    }
    return t;
}

static void convert(const klce_call *call, const klce_isa *isa, const tile *t, int widening)
{
    ptrdiff_t step = t->from_piece_to_piece;
    if (widening)
        isa->widen[call->dtype](t->elems, step, t->wide, t->pieces, t->length);
    else
        isa->narrow[call->dtype](t->wide, t->elems, step, t->pieces, t->length);
}

int klce_widens(klce_op op, const klce_isa *isa)
{
    const klce_operands o = klce_operands_of(op);
    int count = 0;
    for (int k = 0; k < o.count; k++)
        count += o.letter[k] == 'v';
    return count <= WIDENED && isa->kernels[KLCE_DTYPE_f32][op]->few != NULL;
}

ptrdiff_t klce_run_few_widened(const klce_call *call, const klce_isa *isa, ptrdiff_t low,
                               ptrdiff_t high)
{
    const klce_kernel *kernel = isa->kernels[KLCE_DTYPE_f32][call->op];
    klce_call wide = *call;
    float room[WIDENED][ROOM / sizeof(float)];
    tile tiles[WIDENED];
    ptrdiff_t from_tile_to_tile[KLCE_MAX_ARGS];
    const klce_operands o = klce_operands_of(call->op);
    int count = 0, inputs = 0;
    ptrdiff_t size = (ptrdiff_t)klce_elem_sizes[call->dtype];

    if (!klce_widens(call->op, isa))
        return low;
    wide.dtype = KLCE_DTYPE_f32;
    for (int k = 0; k < o.count; k++) {
        wide.arg[k] += low * call->step[k];
        from_tile_to_tile[k] = KLCE_TILE * call->step[k];
        if (o.letter[k] == 'v') {
            tiles[count] = widened(&wide, k, size, room[count]);
            inputs += k < o.outputs_from;
            count++;
            from_tile_to_tile[k] = 0;
        }
    }
    if (wide.mask)
        wide.mask += low * wide.mask_step;

    /* The kernel sees row 0 of those that are left: where its loads go on beyond the tile, they
     * stay within those rows, and within `room`, of which rows that short leave most. */
    wide.rows = high - low;
    for (; low + KLCE_TILE <= high; low += KLCE_TILE) {
        for (int i = 0; i < inputs; i++)
            convert(call, isa, &tiles[i], 1);
        kernel->few(&wide, 0);
        for (int i = inputs; i < count; i++)
            convert(call, isa, &tiles[i], 0);
        for (int i = 0; i < count; i++)
            tiles[i].elems += tiles[i].from_tile_to_tile;
        for (int k = 0; k < o.count; k++)
            wide.arg[k] += from_tile_to_tile[k];
        if (wide.mask)
            wide.mask += KLCE_TILE * wide.mask_step;
        wide.rows -= KLCE_TILE;
    }
    return low;
}

/* An array that is converted as a whole. */
typedef struct {
    const klce_isa *isa;
    klce_dtype dtype;
    const char *elems;
    ptrdiff_t count;
    float *reals;
} conversion;

static void widen_chunk(void *context, ptrdiff_t index)
{
    const conversion *c = context;
    ptrdiff_t low = index * CHUNK, count = c->count - low < CHUNK ? c->count - low : CHUNK;
    const char *elems = c->elems + low * (ptrdiff_t)klce_elem_sizes[c->dtype];
    klce_environment saved = klce_enter();
    c->isa->widen[c->dtype](elems, 0, c->reals + low, 1, count);
    klce_leave(saved);
}

void klce_widen(klce_dtype dtype, const char *elems, ptrdiff_t count, float *reals)
{
    conversion c = {klce_active_isa(), dtype, elems, count, reals};
    klce_parallel_for((count + CHUNK - 1) / CHUNK, 0, widen_chunk, &c);
}
