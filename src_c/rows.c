/* Sharing a call's rows out to threads: by ranges of rows, by segments of long rows, by blocks of
 * rows that lie side by side, or by tiles that are packed first because their classes are not
 * contiguous, or masked. */
#include "klce.h"

#include <stdlib.h>
#include <string.h>

#include "cpus.h"
#include "float_environment.h"
#include "layout.h"
#include "pack.h"
#include "pool.h"
#include "sum.h"
#include "widen.h"

enum {
    CHUNK = 1 << 16,           /* elements a task takes, about: enough to hide its hand-over */
    LONG_CHUNK = 1 << 18,      /* of a pipelined kernel, which a start costs as much as some rows */
    THRESHOLD = 1 << 15,       /* elements below which a second thread does not pay */
    ELEMENTWISE_ROW = 1 << 12, /* elements of an elementwise call that are packed together */
    PACK_WIDTH = 512, /* bytes of a class packed together: enough for memory's speed, see 0008, */
    PACK_BYTES = 1 << 19,   /* if all classes of those rows are no more, which stay in L2; */
    PACK_ROWS = 32,         /* else so many rows: whole cache lines of a transposed array */
    TILE_BYTES = 1 << 14,   /* of rows that the next pass finds in L1, beside its own */
    STRIP_BYTES = 80000,    /* of rows of few classes that are packed side by side, about */
    SPARES = 32,            /* pieces of scratch memory that wait for the next task */
    PACK_LIMIT = 1 << 22,   /* bytes of one packed operand, unless a single row is longer */
    PAST_CACHES = 3 << 22,  /* bytes of a map's results that leave a last level, with its input */
    LINE = 64,              /* bytes of a cache line */
    TILE_AHEAD = 4096,      /* bytes from a tile to what is asked for, at least */
    SUMMED_CHUNKS = 16,     /* of results, a thread's at least, where tasks sum their own */
    BLOCKS = 4,             /* of KLCE_ABREAST rows, that a task takes in turn, if it can */
    LEFT = 4,               /* times more that `abreast` may leave its rows than take them */
    REST = KLCE_ABREAST / 2 /* rows, from which on it takes some twice to take these */
};

typedef struct {
    const klce_call *call;
    const klce_isa *isa; /* the active one, as the call began */
    const klce_kernel *kernel;
    klce_operands operands;
    ptrdiff_t slabs;    /* that tasks are of; 1 where they go on from one slab to the next, */
    ptrdiff_t rows;     /* and the rows of each */
    ptrdiff_t chunk;    /* rows a task takes, but for the first and the last */
    ptrdiff_t chunks;   /* of a slab */
    ptrdiff_t lead;     /* rows that the first of those takes besides */
    ptrdiff_t segments; /* of a row */
    klce_layout layout;
    int pass;
    double *states;          /* of all segments of all rows, when rows are split */
    double **sums;           /* of the chunks of each output's results, when those are not kept */
    ptrdiff_t scratch_bytes; /* see scratch_of */
    _Atomic(char *) spare[SPARES];
    atomic_int failed;
    int in_place;     /* a map's output is an input, so that no row can be taken twice */
    ptrdiff_t packed; /* rows that are packed together of those that `abreast` leaves */
    atomic_int left;  /* how many more times it has left its rows than taken them */
} job;

enum { STATE = KLCE_FIELDS * KLCE_TILE };

static void sweep_row(const klce_call *call, const klce_pass *pass, ptrdiff_t row, double *state)
{
    double part[STATE];
    pass->sweep(call, row, 0, call->n < KLCE_SEGMENT ? call->n : KLCE_SEGMENT, state);
    for (ptrdiff_t low = KLCE_SEGMENT; low < call->n; low += KLCE_SEGMENT) {
        ptrdiff_t high = low + KLCE_SEGMENT < call->n ? low + KLCE_SEGMENT : call->n;
        if (pass->merge) {
            /* A pass finds what the one before it left in the state. */
            for (int f = 0; f < KLCE_FIELDS; f++)
                part[f * KLCE_TILE] = state[f * KLCE_TILE];
            pass->sweep(call, row, low, high, part);
            pass->merge(call, state, part);
        } else {
            pass->sweep(call, row, low, high, state);
        }
    }
}

/* Rows [low, high) of a kernel with passes: those that it does not take in turn by `tile` rows, as
 * many as stay in L1 between the passes.  Of few classes none is taken in turn: they are what tiles
 * have left. */
static void run_tiles(const klce_call *call, const klce_kernel *kernel, ptrdiff_t tile,
                      ptrdiff_t low, ptrdiff_t high)
{
    double state[STATE] = {0};
    int in_turn = kernel->pipelined && !klce_has_few_classes(call);
    for (ptrdiff_t row = low, count; row < high; row += count) {
        count = in_turn ? kernel->pipelined(call, row, high) - row : 0;
        if (count)
            continue;
        count = tile < high - row ? tile : high - row;
        for (const klce_pass *pass = kernel->pass; pass < kernel->pass + KLCE_PASSES && pass->sweep;
             pass++) {
            for (ptrdiff_t i = 0; i < count; i++)
                sweep_row(call, pass, row + i, state + i);
            if (pass->finish)
                pass->finish(call, row, count, state);
        }
    }
}

/* The inputs whose rows are asked for before their tile comes.  A kernel for few classes reads a
 * tile by pieces of many rows; those the processor itself does not follow where two inputs have
 * rows of more than a line, or one has rows of more than two. */
static int inputs_asked_for(const klce_call *call, int *inputs)
{
    const klce_operands o = klce_operands_of(call->op);
    int count = 0;
    for (int k = 0; k < o.outputs_from; k++) {
        ptrdiff_t size = klce_size_of(call, &o, k);
        if ((o.letter[k] == 'v' || o.letter[k] == 'w') && call->core[k] == size &&
            call->step[k] == size * call->n && call->step[k] > LINE)
            inputs[count++] = k;
    }
    return count == 1 && call->step[inputs[0]] <= 2 * LINE ? 0 : count;
}

/* Asks for a tile of input k that comes after the one at `row`.  It may lie beyond the array. */
static void ask_for_tile(const klce_call *call, int k, ptrdiff_t row)
{
#if defined(__GNUC__)
    ptrdiff_t bytes = KLCE_TILE * call->step[k];
    uintptr_t first = (uintptr_t)call->arg[k] + (uintptr_t)(row * call->step[k]);
    first += (uintptr_t)(bytes < TILE_AHEAD ? TILE_AHEAD : bytes);
#pragma GCC unroll 4
    for (ptrdiff_t at = 0; at < bytes; at += LINE)
        __builtin_prefetch((void *)(first + (uintptr_t)at));
#else
    (void)call, (void)k, (void)row;
#endif
}

/* The whole tiles of rows [low, high) of few classes; returns where the rest begins. */
static ptrdiff_t run_few(const klce_call *call, const klce_isa *isa, ptrdiff_t low, ptrdiff_t high)
{
    const klce_kernel *kernel = isa->kernels[call->dtype][call->op];
    if (kernel->few_pipelined)
        low = kernel->few_pipelined(call, low, high);
    if (klce_elem_sizes[call->dtype] != klce_real_sizes[call->dtype])
        return klce_run_few_widened(call, isa, low, high);
    if (!kernel->few)
        return low;
    klce_call own = *call;
    /* A tile's loads may go on into the rows after it, if they are this task's. */
    own.rows = high;
    int asked_for[KLCE_MAX_ARGS], count = inputs_asked_for(call, asked_for);
    for (; low + KLCE_TILE <= high; low += KLCE_TILE) {
        for (int i = 0; i < count; i++)
            ask_for_tile(call, asked_for[i], low);
        kernel->few(&own, low);
    }
    return low;
}

/* Within the environment of kernels. */
static void run_rows_within(const klce_call *call, const klce_isa *isa, ptrdiff_t low,
                            ptrdiff_t high)
{
    const klce_kernel *kernel = isa->kernels[call->dtype][call->op];
    ptrdiff_t size = (ptrdiff_t)klce_elem_sizes[call->dtype];
    ptrdiff_t tile = TILE_BYTES / size / (call->n + 1); /* of no classes, too */
    if (!kernel->pass[1].sweep)                         /* none to find the rows in cache */
        tile = KLCE_TILE;

    if (kernel->rows) {
        kernel->rows(call, low, high);
        low = high;
    }
    if (klce_has_few_classes(call))
        low = run_few(call, isa, low, high);
    tile = tile < 1 ? 1 : tile < KLCE_TILE ? tile : KLCE_TILE;
    if (low < high)
        run_tiles(call, kernel, tile, low, high);
}

static void run_rows_of(const klce_call *call, const klce_isa *isa, ptrdiff_t low, ptrdiff_t high)
{
    klce_environment saved = klce_enter();
    run_rows_within(call, isa, low, high);
    klce_leave(saved);
}

/* A copy of a call that is for its first slab, to another one. */
static void move_to_slab(const job *j, klce_call *call, ptrdiff_t slab)
{
    for (int k = 0; k < j->operands.count; k++)
        call->arg[k] += slab * call->slab_step[k];
}

/* What a task takes: some rows of a slab, which is a call of its own. */
typedef struct {
    const klce_call *call;
    klce_call own;
    ptrdiff_t low, high;
} chunk;

static void find_chunk(const job *j, ptrdiff_t index, chunk *c)
{
    ptrdiff_t i = index % j->chunks;
    c->call = j->call;
    c->low = i ? i * j->chunk + j->lead : 0;
    c->high = i + 1 < j->chunks ? (i + 1) * j->chunk + j->lead : j->rows;
    if (index < j->chunks) /* the first slab, which most calls have alone */
        return;
    c->own = *j->call;
    move_to_slab(j, &c->own, index / j->chunks);
    c->call = &c->own;
}

static void run_chunk(void *context, ptrdiff_t index)
{
    job *j = context;
    chunk c;
    find_chunk(j, index, &c);
    run_rows_of(c.call, j->isa, c.low, c.high);
}

/* What results are in. */
static klce_dtype dtype_of_results(const klce_call *call)
{
    return klce_real_sizes[call->dtype] == sizeof(float) ? KLCE_DTYPE_f32 : KLCE_DTYPE_f64;
}

/* A chunk whose results are summed while they are in cache, and not kept. */
static void run_summed_chunk(void *context, ptrdiff_t index)
{
    enum { ROWS = 4 * KLCE_SUM_CHUNK };
    job *j = context;
    klce_call call = *j->call;
    double results[KLCE_TOTALS][ROWS];
    ptrdiff_t low = index * j->chunk, size = (ptrdiff_t)klce_real_sizes[call.dtype];
    ptrdiff_t high = low + j->chunk < call.rows ? low + j->chunk : call.rows;
    const int out = j->operands.outputs_from, count = j->operands.count;
    for (int k = 0; k < out; k++)
        call.arg[k] += low * call.step[k];
    if (call.mask)
        call.mask += low * call.mask_step;
    for (int k = out; k < count; k++) {
        call.arg[k] = (char *)results[k - out];
        call.step[k] = size;
    }
    klce_environment saved = klce_enter(); /* once: a switch takes as long as a hundred rows */
    for (; low < high; low += ROWS) {
        call.rows = ROWS < high - low ? ROWS : high - low;
        run_rows_within(&call, j->isa, 0, call.rows);
        for (int k = out; k < count; k++)
            klce_sum_chunks(dtype_of_results(&call), call.arg[k], call.rows, size,
                            j->sums[k - out] + low / KLCE_SUM_CHUNK);
        for (int k = 0; k < out; k++)
            call.arg[k] += ROWS * call.step[k];
        if (call.mask)
            call.mask += ROWS * call.mask_step;
    }
    klce_leave(saved);
}

/* The bytes that any task of a job takes: for a packing, of which there are two where a tile is not
 * whole, or for the panels of `abreast`. */
static ptrdiff_t scratch_of(const job *j)
{
    ptrdiff_t chunk = 0, rest = 0;
    if (j->layout == KLCE_PACKED_TOGETHER || j->layout == KLCE_PACKED_SIDE_BY_SIDE)
        chunk = klce_packing_of(j->call, &j->operands, j->chunk, j->layout).bytes;
    if (j->layout == KLCE_SIDE_BY_SIDE || j->layout == KLCE_PACKED_SIDE_BY_SIDE)
        rest = klce_packing_of(j->call, &j->operands, KLCE_TILE, KLCE_PACKED_TOGETHER).bytes;
    if (j->layout == KLCE_MANY_SIDE_BY_SIDE) {
        ptrdiff_t size = (ptrdiff_t)klce_real_sizes[j->call->dtype];
        rest = klce_packing_of(j->call, &j->operands, j->packed, KLCE_PACKED_TOGETHER).bytes;
        chunk = KLCE_ABREAST * (j->call->n + KLCE_PANEL_CLASSES - 1) * size;
        chunk = KLCE_ALIGNMENT + j->kernel->panels * chunk;
    }
    return chunk < rest ? rest : chunk;
}

/* Scratch memory for a task, of which a job keeps some from task to task: memory that goes back to
 * the system is paid for anew, page by page, often with more than it takes to pack it. */
static char *take_scratch(job *j)
{
    for (int i = 0; i < SPARES; i++) {
        char *spare = atomic_exchange(&j->spare[i], NULL);
        if (spare)
            return spare;
    }
    return malloc((size_t)j->scratch_bytes);
}

static void give_scratch(job *j, char *scratch)
{
    for (int i = 0; i < SPARES; i++) {
        char *none = NULL;
        if (atomic_compare_exchange_strong(&j->spare[i], &none, scratch))
            return;
    }
    free(scratch);
}

static char *aligned(char *scratch)
{
    return scratch + (-(uintptr_t)scratch & (KLCE_ALIGNMENT - 1));
}

static void run_side_by_side(job *j, const klce_call *call, ptrdiff_t low, ptrdiff_t high);

/* Rows [low, high) whose strided or masked operands go through scratch memory, where what lay side
 * by side may stay so.  All inputs are read before an output is written, so that a map may work in
 * place. */
static void run_packed(job *j, const klce_call *array, ptrdiff_t low, ptrdiff_t high,
                       klce_layout into)
{
    const klce_operands *o = &j->operands;
    const ptrdiff_t rows = high - low, n = array->n;
    const klce_packing p = klce_packing_of(array, o, rows, into);
    klce_call call = *array;
    char *scratch = take_scratch(j);
    if (!scratch) {
        atomic_store(&j->failed, 1);
        return;
    }
    char *packed = aligned(scratch);

    call.rows = rows;
    if (call.mask)
        call.mask += low * call.mask_step;
    for (int k = 0; k < o->count; k++) {
        char *from = call.arg[k] += low * call.step[k], *to = packed + p.operand[k].offset;
        ptrdiff_t size = klce_size_of(array, o, k);
        ptrdiff_t distinct = p.operand[k].rows, step = p.operand[k].step, core = p.operand[k].core;
        if (!p.operand[k].is_packed)
            continue;
        const klce_mask mask = {call.mask, call.mask_step, call.mask_core, call.dtype, o->fill[k]};
        int is_strip = p.operand[k].is_strip, is_masked = p.operand[k].is_masked;
        if (k < o->outputs_from && is_strip && is_masked)
            klce_pack_masked_strip(to, core, from, call.core[k], rows, n, &mask);
        else if (k < o->outputs_from && is_strip)
            klce_pack_strip(to, core, from, call.core[k], n, rows * size);
        else if (k < o->outputs_from && is_masked)
            klce_pack_masked(to, step, from, call.step[k], call.core[k], distinct, n, &mask);
        else if (k < o->outputs_from)
            klce_pack(to, step, from, call.step[k], call.core[k], distinct, n, (size_t)size);
        call.arg[k] = to;
        call.step[k] = distinct < rows ? 0 : step;
        call.core[k] = core;
    }
    if (into == KLCE_PACKED_SIDE_BY_SIDE)
        run_side_by_side(j, &call, 0, rows);
    else
        run_rows_of(&call, j->isa, 0, rows);
    for (int k = o->outputs_from; k < o->count; k++) {
        char *to = array->arg[k] + low * array->step[k];
        ptrdiff_t size = klce_size_of(array, o, k);
        if (p.operand[k].is_strip)
            klce_unpack_strip(to, array->core[k], call.arg[k], call.core[k], n, rows * size);
        else if (p.operand[k].is_packed)
            klce_unpack(to, array->step[k], array->core[k], call.arg[k], call.step[k], rows, n,
                        (size_t)size);
    }
    give_scratch(j, scratch);
}

/* Rows of few classes that lie side by side: by whole tiles, and row by row what those leave. */
static void run_side_by_side(job *j, const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    klce_environment saved = klce_enter();
    low = run_few(call, j->isa, low, high);
    klce_leave(saved);
    if (low < high)
        run_packed(j, call, low, high, KLCE_PACKED_TOGETHER);
}

static void run_side_by_side_chunk(void *context, ptrdiff_t index)
{
    job *j = context;
    chunk c;
    find_chunk(j, index, &c);
    run_side_by_side(j, c.call, c.low, c.high);
}

/* Rows [low, high) as they lie, as far as the kernel takes them, unless it has mostly left some;
 * returns the first that is left. */
static ptrdiff_t take_abreast(job *j, const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    if (high - low < KLCE_ABREAST || atomic_load_explicit(&j->left, memory_order_relaxed) > LEFT)
        return low;
    char *scratch = take_scratch(j);
    if (!scratch)
        return low; /* told of where they are packed */
    klce_environment saved = klce_enter();
    ptrdiff_t end = j->kernel->abreast(call, low, high, aligned(scratch));
    klce_leave(saved);
    give_scratch(j, scratch);
    int left = high - end >= KLCE_ABREAST, taken = (int)((end - low) / KLCE_ABREAST);
    atomic_fetch_add_explicit(&j->left, left - taken, memory_order_relaxed);
    return end;
}

/* Rows that `abreast` leaves, of one slab. */
static void run_block_packed(job *j, const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    klce_call own = *call;
    ptrdiff_t before = low - low % call->rows;
    move_to_slab(j, &own, before / call->rows);
    for (ptrdiff_t end; low < high; low = end) {
        end = low + j->packed < high ? low + j->packed : high;
        run_packed(j, &own, low - before, end - before, KLCE_PACKED_TOGETHER);
    }
}

/* Rows of many classes that lie side by side, by blocks of KLCE_ABREAST.  Unless the op works in
 * place, blocks may overlap, and rows that are in two are computed twice: the second block begins
 * at the first cache line (`lead`), and the last one ends with the last row.  Packed are the blocks
 * that the kernel leaves, and a rest of fewer than REST rows. */
static void run_abreast_chunk(void *context, ptrdiff_t index)
{
    job *j = context;
    chunk c;
    find_chunk(j, index, &c);
    for (ptrdiff_t row = c.low; row < c.high;) {
        ptrdiff_t first = row, high = row == 0 && j->lead ? KLCE_ABREAST : c.high;
        if (!j->in_place && c.high - row < KLCE_ABREAST && c.high - row >= REST)
            first = c.high - KLCE_ABREAST;
        ptrdiff_t end = take_abreast(j, c.call, first, high);
        if (end == first || high - end >= KLCE_ABREAST) { /* it leaves a block, or there is none */
            ptrdiff_t low = end == first ? row : end;
            end = low + KLCE_ABREAST < high ? low + KLCE_ABREAST : high;
            run_block_packed(j, c.call, low, end);
        }
        row = row == 0 && j->lead ? j->lead : end;
    }
}

static int is_in_place(const klce_call *call, const klce_operands *o)
{
    for (int k = o->outputs_from; k < o->count; k++)
        for (int i = 0; i < o->outputs_from; i++)
            if (o->letter[k] == 'v' && call->arg[k] == call->arg[i])
                return 1;
    return 0;
}

/* The rows of operand 0 before a cache line, of rows so many that to take some of them twice costs
 * little: where all classes begin at the same place of one. */
static ptrdiff_t rows_before_line(const klce_call *call)
{
    ptrdiff_t bytes = (ptrdiff_t)(-(uintptr_t)call->arg[0] % LINE);
    return call->rows < 16 * KLCE_ABREAST || call->core[0] % LINE ? 0 : bytes / call->step[0];
}

static void run_packed_chunk(void *context, ptrdiff_t index)
{
    job *j = context;
    chunk c;
    find_chunk(j, index, &c);
    run_packed(j, c.call, c.low, c.high, j->layout);
}

static void run_segment(void *context, ptrdiff_t index)
{
    job *j = context;
    klce_environment saved = klce_enter();
    ptrdiff_t row = index / j->segments, low = index % j->segments * KLCE_SEGMENT;
    ptrdiff_t high = low + KLCE_SEGMENT < j->call->n ? low + KLCE_SEGMENT : j->call->n;
    double *state = j->states + index * STATE;
    j->kernel->pass[j->pass].sweep(j->call, row, low, high, state);
    klce_leave(saved);
}

/* Few long rows: each pass by segments, then the rows' states merged in order. */
static klce_status run_split(job *j)
{
    ptrdiff_t tasks = j->call->rows * j->segments;
    j->states = calloc((size_t)tasks, STATE * sizeof *j->states);
    if (!j->states)
        return KLCE_NO_MEMORY;
    for (j->pass = 0; j->pass < KLCE_PASSES && j->kernel->pass[j->pass].sweep; j->pass++) {
        const klce_merge merge = j->kernel->pass[j->pass].merge;
        const klce_finish finish = j->kernel->pass[j->pass].finish;
        klce_parallel_for(tasks, 0, run_segment, j);
        klce_environment saved = klce_enter();
        for (ptrdiff_t row = 0; row < j->call->rows; row++) {
            double *state = j->states + row * j->segments * STATE;
            if (merge)
                for (ptrdiff_t s = 1; s < j->segments; s++)
                    merge(j->call, state, state + s * STATE);
            if (finish)
                finish(j->call, row, 1, state);
            /* The next pass starts, in every segment, from what this one left. */
            for (ptrdiff_t s = 1; s < j->segments; s++)
                for (int f = 0; f < STATE; f += KLCE_TILE)
                    state[s * STATE + f] = state[f];
        }
        klce_leave(saved);
    }
    free(j->states);
    return KLCE_OK;
}

/* The rows that a task packs together, which cost as much as n classes each. */
static ptrdiff_t packed_rows(const job *j, ptrdiff_t n, int threads)
{
    const klce_call *call = j->call;
    ptrdiff_t size = (ptrdiff_t)klce_elem_sizes[call->dtype];
    ptrdiff_t row_bytes = size * (call->n ? call->n : 1); /* gathered from, too */
    int strided = 0;
    for (int k = 0; k < j->operands.count; k++)
        strided |= klce_is_strided(call, &j->operands, k);
    /* Rows that are only masked share no cache lines: as many as stay in L2. */
    ptrdiff_t fit = (strided ? PACK_LIMIT : TILE_BYTES) / row_bytes;
    ptrdiff_t share = call->rows * call->slabs / threads;
    int strip = j->layout == KLCE_PACKED_SIDE_BY_SIDE;
    ptrdiff_t few = strip ? STRIP_BYTES / row_bytes : CHUNK / 4 / n;
    ptrdiff_t wide = PACK_WIDTH / size < few ? few : PACK_WIDTH / size;
    ptrdiff_t most = PACK_BYTES / row_bytes < PACK_ROWS ? PACK_ROWS : PACK_BYTES / row_bytes;
    most = most < wide ? most : wide;
    ptrdiff_t chunk = fit < most ? fit : most;
    chunk = chunk < share ? chunk : share;
    if (chunk > KLCE_TILE) /* whole tiles */
        return chunk - chunk % KLCE_TILE;
    return chunk < 1 ? 1 : chunk;
}

/* The rows a task takes. */
static ptrdiff_t chunk_rows(const job *j, ptrdiff_t n, int threads, int summed)
{
    const klce_call *call = j->call;
    int abreast = j->layout == KLCE_MANY_SIDE_BY_SIDE;
    if (j->layout == KLCE_PACKED_TOGETHER || j->layout == KLCE_PACKED_SIDE_BY_SIDE)
        return packed_rows(j, n, threads);
    ptrdiff_t least = abreast ? KLCE_ABREAST : KLCE_TILE;
    ptrdiff_t unit = summed ? KLCE_SUM_CHUNK : j->layout == KLCE_TOGETHER ? 1 : least;
    int pipelined = j->kernel->pipelined && !klce_has_few_classes(call);
    ptrdiff_t chunk = (pipelined ? LONG_CHUNK : CHUNK) / n / least * least;
    ptrdiff_t share = (call->rows * call->slabs + threads - 1) / threads;
    chunk = chunk ? chunk : least;
    if (abreast && j->kernel->panels) /* a start reads a block alone */
        chunk = chunk < BLOCKS * least ? BLOCKS * least : chunk;
    chunk = threads == 1 ? j->rows : chunk < share ? chunk : share;
    return chunk + (unit - chunk % unit) % unit;
}

/* `sums`, if given, receive those of the chunks of results. */
static klce_status run_rows(klce_call *call, double **sums)
{
    job j = {.call = call, .operands = klce_operands_of(call->op), .sums = sums};
    j.isa = klce_active_isa();
    j.kernel = j.isa->kernels[call->dtype][call->op];
    ptrdiff_t n = call->n ? call->n : 1;
    int gathers = 0;

    for (int k = 0; k < j.operands.count; k++)
        gathers |= j.operands.letter[k] == 'g';
    if (gathers)
        n = n < 16 ? 4 : 16; /* whatever the classes, a row costs a cache miss or a part of one */
    call->whole_rows = call->few_together = 0;
    if (j.kernel->prepare) {
        klce_environment saved = klce_enter();
        j.kernel->prepare(call);
        klce_leave(saved);
    }

    j.layout = klce_layout_of(call, &j.operands, j.isa);
    ptrdiff_t all_rows = call->rows * call->slabs;
    call->past_caches = j.layout == KLCE_TOGETHER &&
                        all_rows > PAST_CACHES / n / (ptrdiff_t)klce_elem_sizes[call->dtype];
    int threads = all_rows <= THRESHOLD / n ? 1 : klce_get_num_threads();
    if (j.layout == KLCE_MANY_SIDE_BY_SIDE && threads > 1 &&
        call->rows / KLCE_ABREAST * call->slabs < threads)
        j.layout = KLCE_PACKED_TOGETHER; /* by which all of them have something to do */
    j.segments = (n + KLCE_SEGMENT - 1) / KLCE_SEGMENT;
    if (j.layout == KLCE_TOGETHER && !sums && !call->whole_rows && j.kernel->pass[0].sweep &&
        threads > 1 && j.segments > 1 && all_rows < 4 * threads && call->slabs == 1)
        return run_split(&j);

    j.slabs = call->slabs;
    j.rows = call->rows;
    if (j.layout == KLCE_MANY_SIDE_BY_SIDE) {
        j.in_place = is_in_place(call, &j.operands);
        j.lead = j.in_place ? 0 : rows_before_line(call);
        j.packed = packed_rows(&j, n, threads);
        if (!j.lead && call->rows % KLCE_ABREAST == 0) { /* no block is of two slabs */
            j.rows *= j.slabs;
            j.slabs = 1;
        }
    }
    j.chunk = chunk_rows(&j, n, threads, sums != NULL);
    void (*run)(void *, ptrdiff_t) = j.layout == KLCE_TOGETHER
                                         ? (sums ? run_summed_chunk : run_chunk)
                                     : j.layout == KLCE_SIDE_BY_SIDE      ? run_side_by_side_chunk
                                     : j.layout == KLCE_MANY_SIDE_BY_SIDE ? run_abreast_chunk
                                                                          : run_packed_chunk;
    /* No task takes fewer rows than `abreast`. */
    ptrdiff_t least = j.layout == KLCE_MANY_SIDE_BY_SIDE ? KLCE_ABREAST : 1;
    j.chunks = (j.rows - j.lead + j.chunk - least) / j.chunk;
    j.scratch_bytes = scratch_of(&j);
    klce_parallel_for(j.chunks * j.slabs, threads, run, &j);
    for (int i = 0; i < SPARES && j.layout != KLCE_TOGETHER; i++)
        free(atomic_load(&j.spare[i]));
    return atomic_load(&j.failed) ? KLCE_NO_MEMORY : KLCE_OK;
}

klce_status klce_run(const klce_call *call)
{
    klce_call rows = *call;
    if (call->rows <= 0)
        return KLCE_OK;
    rows.slabs = call->slabs > 1 ? call->slabs : 1;
    if (!strchr(klce_op_signatures[call->op], 'e'))
        return run_rows(&rows, NULL);

    /* Elementwise: the row is cut into short ones, and a rest. */
    const ptrdiff_t n = rows.n;
    const int count = klce_operands_of(call->op).count;
    for (int pass = 0; pass < 2; pass++) {
        ptrdiff_t length = pass ? n % ELEMENTWISE_ROW : ELEMENTWISE_ROW;
        rows.rows = pass ? 1 : n / ELEMENTWISE_ROW;
        rows.n = length;
        for (int k = 0; k < count; k++) {
            rows.step[k] = rows.core[k] * ELEMENTWISE_ROW;
            rows.arg[k] = call->arg[k] + (pass ? n - length : 0) * rows.core[k];
        }
        if (rows.rows && length) {
            klce_status status = run_rows(&rows, NULL);
            if (status != KLCE_OK)
                return status;
        }
    }
    return KLCE_OK;
}

/* Tasks sum their own results where every thread gets many chunks of them; else the results wait in
 * memory. */
klce_status klce_run_totals(const klce_call *call, double *totals)
{
    klce_call rows = *call;
    job j = {.call = &rows, .operands = klce_operands_of(call->op)};
    ptrdiff_t size = (ptrdiff_t)klce_real_sizes[call->dtype];
    ptrdiff_t chunks = (call->rows + KLCE_SUM_CHUNK - 1) / KLCE_SUM_CHUNK;
    const int out = j.operands.outputs_from, outputs = j.operands.count - out;
    memset(totals, 0, (size_t)outputs * sizeof *totals);
    if (call->rows <= 0)
        return KLCE_OK;
    rows.slabs = call->slabs > 1 ? call->slabs : 1;
    ptrdiff_t all_rows = call->rows * rows.slabs;
    int in_tasks = rows.slabs == 1 && klce_lie_together(call, &j.operands) &&
                   chunks >= SUMMED_CHUNKS * klce_get_num_threads();
    ptrdiff_t bytes = in_tasks ? chunks * (ptrdiff_t)sizeof *totals : all_rows * size;
    char *memory = malloc((size_t)(outputs * bytes));
    double *sums[KLCE_TOTALS];
    if (!memory)
        return KLCE_NO_MEMORY;
    for (int k = 0; k < outputs; k++) {
        if (in_tasks) {
            sums[k] = (double *)(memory + k * bytes);
            continue;
        }
        rows.arg[out + k] = memory + k * bytes;
        rows.step[out + k] = size;
        rows.slab_step[out + k] = call->rows * size;
    }
    klce_status status = run_rows(&rows, in_tasks ? sums : NULL);
    for (int k = 0; k < outputs && status == KLCE_OK; k++)
        totals[k] = in_tasks ? klce_total_of_chunks(sums[k], chunks)
                             : klce_sum(dtype_of_results(call), memory + k * bytes, all_rows, size);
    free(memory);
    return status;
}
