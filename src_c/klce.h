/* The interface of the C core: kernels over the rows of an array.
 *
 * Nothing here knows of Python.  A caller fills a klce_call and hands it to klce_run, which packs
 * rows that are not contiguous, shares them out to the pool's threads and runs the kernel of the
 * active instruction set (ISA).
 */
#ifndef KLCE_H
#define KLCE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Whether the stubs beyond the baseline are compiled:
 * they need the compiler's vector extensions. */
#if defined(__x86_64__) && defined(__has_builtin) && !defined(KLCE_FORCE_WIDTH1) &&                \
    !defined(KLCE_BASELINE_ONLY)
#if __has_builtin(__builtin_shufflevector) && __has_builtin(__builtin_convertvector)
#define KLCE_HAS_X86_VECTORS 1
#endif
#endif
#ifndef KLCE_HAS_X86_VECTORS
#define KLCE_HAS_X86_VECTORS 0
#endif

/* KLCE_OP_logsumexp, KLCE_OP_softmax, ... */
typedef enum {
#define KLCE_OP(name, signature, fills) KLCE_OP_##name,
#include "ops.def"
#undef KLCE_OP
    KLCE_OP_COUNT
} klce_op;

/* Elements of 16 bits: structs, so that no arithmetic is done on their bits by mistake. */
typedef struct {
    uint16_t bits;
} klce_f16;
typedef struct {
    uint16_t bits;
} klce_bf16;

/* KLCE_DTYPE_f32, KLCE_DTYPE_f64, ... */
typedef enum {
#define KLCE_DTYPE(name, elem, real) KLCE_DTYPE_##name,
#include "dtypes.def"
#undef KLCE_DTYPE
    KLCE_DTYPE_COUNT
} klce_dtype;

/* KLCE_score_nll and so on: the bit by which a statistic is asked for, see statistics.def. */
#define KLCE_STATISTIC(op, name, letter, of_target) KLCE_##op##_##name,
typedef enum {
#define KLCE_SCORE KLCE_STATISTIC
#define KLCE_COMPARE(op, name, letter, of_target)
#include "statistics.def"
#undef KLCE_SCORE
#undef KLCE_COMPARE
    KLCE_SCORE_COUNT
} klce_score_statistic;
typedef enum {
#define KLCE_SCORE(op, name, letter, of_target)
#define KLCE_COMPARE KLCE_STATISTIC
#include "statistics.def"
#undef KLCE_SCORE
#undef KLCE_COMPARE
    KLCE_COMPARE_COUNT
} klce_compare_statistic;
#undef KLCE_STATISTIC

/* The bits of those that take a target. */
enum {
    KLCE_COMPARE_OF_TARGET = 0
#define KLCE_SCORE(op, name, letter, of_target)
#define KLCE_COMPARE(op, name, letter, of_target) | of_target << KLCE_compare_##name
#include "statistics.def"
#undef KLCE_SCORE
#undef KLCE_COMPARE
};

/* A row of statistics.def. */
typedef struct {
    const char *name;
    char letter;
    int of_target;
} klce_statistic;

enum {
    KLCE_MAX_ARGS = 16,
    KLCE_TILE = 16,            /* rows whose states are finished together, across vector lanes */
    KLCE_ABREAST = 64,         /* rows of many classes that are taken side by side, */
    KLCE_PANEL_CLASSES = 4,    /* and their classes that are together where they are kept */
    KLCE_FIELDS = 26,          /* doubles of state a row */
    KLCE_PASSES = 4,           /* at most, over a row */
    KLCE_CONTEXT = 40,         /* doubles of a temperature's constants */
    KLCE_FEW_BYTES = 1024,     /* of `real`, in a row of few classes: FEW of them (kernels.h) */
    KLCE_SEGMENT = 32768,      /* a long row is split at multiples of this, for any thread count */
    KLCE_KEPT_BYTES = 1 << 23, /* a row's exponentials, at most, that softmax keeps in cache */
    KLCE_TOP = 1024,           /* the most that the top of a row may be asked for */
    KLCE_SUM_CHUNK = 256,      /* results summed at a time, by eight chains */
    KLCE_TOTALS = 2            /* outputs, at most, of which a call may give sums */
};

/* A label out of range, and one that is ignored. */
typedef enum { KLCE_BAD_LABEL = 1, KLCE_IGNORED_LABEL = 2 } klce_label_kind;

/* One call: `rows` rows of `n` classes.  Argument k of row i starts at arg[k] + i*step[k]; its
 * classes are core[k] bytes apart (operands without classes ignore core).  klce_run packs what lies
 * apart or is masked, so that kernels see contiguous classes (but for `few` and `abreast`, see
 * klce_kernel), a masked one as its fill (ops.def).  An operand g alone comes as it is: kernels
 * that gather read the mask themselves, as do those that count classes. */
typedef struct {
    klce_op op;
    klce_dtype dtype;
    ptrdiff_t rows, n;
    char *arg[KLCE_MAX_ARGS];
    ptrdiff_t step[KLCE_MAX_ARGS];
    ptrdiff_t core[KLCE_MAX_ARGS];
    ptrdiff_t extent[KLCE_MAX_ARGS]; /* values a row, of operands that have a number of their own */
    /* More than one: so many blocks of such rows, argument k of the next one slab_step[k] bytes on.
     * Classes on a middle axis make them.  Not of an elementwise op, nor with a mask. */
    ptrdiff_t slabs, slab_step[KLCE_MAX_ARGS];
    /* Which classes count, a byte each (0: masked), laid out by steps likewise; NULL: all. */
    const char *mask;
    ptrdiff_t mask_step, mask_core;
    /* Set by a kernel's prepare: its sweeps leave more than a state, so that rows are not split. */
    int whole_rows;
    /* Likewise: `few` takes only rows whose classes are together. */
    int few_together;
    /* Set by klce_run: a map's results go past the caches, which do not hold them all. */
    int past_caches;
    /* Where kernels tell what they met among the labels: klce_label_kind, or-ed (of ignored ones,
     * what losses met); not NULL for an op that has labels.  The result of a bad one is nan; which
     * it is, klce_check_labels tells. */
    atomic_int *labels_met;
    /* What the kernel works out once a call (the constants of exp at one temperature or two). */
    double context[2 * KLCE_CONTEXT];
} klce_call;

/* A row's state: field f of the tile's row i stands at state[f*KLCE_TILE + i].  What the fields
 * mean is the op's business; merge and finish see nothing else of a swept row. */
typedef void (*klce_sweep)(const klce_call *, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                           double *state);
typedef void (*klce_merge)(const klce_call *, double *into, const double *from);
typedef void (*klce_finish)(const klce_call *, ptrdiff_t row, ptrdiff_t count, double *state);

/* One pass over rows.  Sweep takes classes [low, high) of one row into its state; merge joins the
 * state of the row's next segment to it (a pass that only writes outputs has none); finish turns
 * the states of up to KLCE_TILE rows into results, or into what the next pass needs. */
typedef struct {
    klce_sweep sweep;
    klce_merge merge;
    klce_finish finish;
} klce_pass;

/* One op of one dtype of one ISA: up to KLCE_PASSES passes, or `rows`, which does rows [low, high)
 * whole where there is nothing to keep from class to class.  `few`, if present, takes KLCE_TILE
 * whole rows of 1 class to KLCE_FEW_BYTES of `real` from start to end, with the same bits as the
 * passes; a dtype that is computed in another has none, and its rows of few classes are widened for
 * the other's (widen.c).  Its rows may lie side by side, a step from one to the next being the size
 * of an element.  `few_pipelined`, if present, takes whole tiles of them first, a step of one along
 * with a step of another, and returns the first row that it leaves; it takes elements of any dtype.
 * Of more classes, `pipelined`, if present, does rows of an op of passes, to the
 * same bits, a step of one row along with a step of another, and returns the first that it leaves;
 * where that is `low`, the passes take a tile.  `abreast`, if present, takes rows [low, high) that
 * lie side by side, of more classes than few, up to `most_abreast`, to the bits of the passes, by
 * blocks of KLCE_ABREAST; it returns the first row that it leaves, as `pipelined` does.  Rows count
 * on from slab to slab, where a slab is whole blocks.  `scratch`, which begins at a cache line, has
 * room for `panels` blocks of an operand as `real`. */
typedef struct {
    void (*prepare)(klce_call *); /* fills the call's context; may be absent */
    klce_pass pass[KLCE_PASSES];
    void (*few)(const klce_call *, ptrdiff_t row);
    ptrdiff_t (*few_pipelined)(const klce_call *, ptrdiff_t low, ptrdiff_t high);
    void (*rows)(const klce_call *, ptrdiff_t low, ptrdiff_t high);
    ptrdiff_t (*pipelined)(const klce_call *, ptrdiff_t low, ptrdiff_t high);
    ptrdiff_t (*abreast)(const klce_call *, ptrdiff_t low, ptrdiff_t high, void *scratch);
    ptrdiff_t most_abreast;
    int panels;
} klce_kernel;

typedef struct {
    const char *name;
    int vector_bytes;
    int (*supported)(void);
    const klce_kernel *const *kernels[KLCE_DTYPE_COUNT]; /* [dtype][op] */
    /* Pieces of n elements, `step` bytes apart, as `real` one after another, and those rounded
     * back; NULL for a dtype whose elements are `real`. */
    void (*widen[KLCE_DTYPE_COUNT])(const char *elems, ptrdiff_t step, void *reals,
                                    ptrdiff_t pieces, ptrdiff_t n);
    void (*narrow[KLCE_DTYPE_COUNT])(const void *reals, char *elems, ptrdiff_t step,
                                     ptrdiff_t pieces, ptrdiff_t n);
    /* Sums of `count` chunks of results; NULL for a dtype that none have (chunk_sums.h). */
    void (*sum_chunks[KLCE_DTYPE_COUNT])(const void *reals, ptrdiff_t count, double *sums);
} klce_isa;

/* klce_isa_baseline, klce_isa_avx2, ... */
#define KLCE_ISA(name) extern const klce_isa klce_isa_##name;
#include "isas.def"
#undef KLCE_ISA

/* dispatch.c */
extern const char *const klce_op_names[KLCE_OP_COUNT];
extern const char *const klce_op_signatures[KLCE_OP_COUNT];
extern const char *const klce_op_fills[KLCE_OP_COUNT];
extern const klce_statistic klce_score_statistics[KLCE_SCORE_COUNT];
extern const klce_statistic klce_compare_statistics[KLCE_COMPARE_COUNT];
extern const char *const klce_dtype_names[KLCE_DTYPE_COUNT];
extern const size_t klce_elem_sizes[KLCE_DTYPE_COUNT]; /* bytes of what memory holds */
extern const size_t klce_real_sizes[KLCE_DTYPE_COUNT]; /* and of what is computed in */
int klce_isa_count(void);
const klce_isa *klce_isa_at(int index); /* in the order of isas.def: the last supported is best */
const klce_isa *klce_active_isa(void);
int klce_select_isa(const char *name); /* NULL: the best supported; -1: unknown; -2: unsupported */

/* rows.c */
typedef enum { KLCE_OK = 0, KLCE_NO_MEMORY = -1 } klce_status;
klce_status klce_run(const klce_call *call);
/* The same of an op whose outputs, up to KLCE_TOTALS, are results a row, which go nowhere: the sum
 * of each, to the bits of klce_sum. */
klce_status klce_run_totals(const klce_call *call, double *totals);

/* labels.c: the first i in [0, count) whose label is neither in [0, classes) nor equal to `ignore`;
 * -1 if there is none, and *counted receives the labels not ignored. */
ptrdiff_t klce_check_labels(const int64_t *labels, ptrdiff_t count, int64_t classes, int64_t ignore,
                            int64_t *counted);

/* sum.c: by fixed chunks with compensation, the same bits however the values came about.  Results
 * are summed, which are f32 or f64. */
double klce_sum(klce_dtype dtype, const char *values, ptrdiff_t count, ptrdiff_t step);

/* sum.c: total/unit, and over `count`, if that is not 1, as a number of the results' dtype; nan
 * over 0. */
double klce_mean(klce_dtype dtype, double total, double unit, double count);

/* widen.c: `count` elements of a dtype that is computed in float32, as that. */
void klce_widen(klce_dtype dtype, const char *elems, ptrdiff_t count, float *reals);

#endif
