/* Packing: where the rows of an array lie side by side (classes on another axis than the last), it
 * is transposed by squares of 16-byte vectors; otherwise element by element. */
#include "pack.h"

#include <string.h>

#if defined(__GNUC__) && defined(__has_builtin) && !defined(KLCE_FORCE_WIDTH1)
#if __has_builtin(__builtin_shufflevector)
#define BY_SQUARES 1
#endif
#endif

enum {
    LINE = 64,  /* bytes of a cache line */
    AHEAD = 16, /* classes that are asked for before they are moved: each is on a page of its own */
    SHORT = 1024, /* bytes of a class that are all asked for */
};

/* An odd number of cache lines, so that one place of many rows, or of many classes, does not fall
 * into the same few places of a cache. */
static ptrdiff_t odd_lines(ptrdiff_t bytes) { return ((bytes + LINE - 1) / LINE | 1) * LINE; }

/* Short rows follow one another. */
ptrdiff_t klce_packed_step(ptrdiff_t n, size_t size)
{
    ptrdiff_t bytes = n * (ptrdiff_t)size;
    return bytes <= 16 * LINE ? bytes : odd_lines(bytes);
}

ptrdiff_t klce_strip_core(ptrdiff_t bytes) { return odd_lines(bytes); }

/* Asks for memory to be read or written, which may lie beyond the array. */
static inline void ask_for(const char *array, ptrdiff_t offset, ptrdiff_t bytes)
{
#if defined(__GNUC__)
    uintptr_t first = (uintptr_t)array + (uintptr_t)offset, end = first + (uintptr_t)bytes;
    for (first &= -(uintptr_t)LINE; first < end; first += LINE)
        __builtin_prefetch((void *)first);
#else
    (void)array, (void)offset, (void)bytes;
#endif
}

#if BY_SQUARES
#define LOW_PAIRS_16 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_PAIRS_16 4, 12, 5, 13, 6, 14, 7, 15
#define LOW_PAIRS_32 0, 4, 1, 5
#define HIGH_PAIRS_32 2, 6, 3, 7
#define LOW_PAIRS_64 0, 2
#define HIGH_PAIRS_64 1, 3

/* Packs, or with packing = 0 unpacks, an array whose rows lie side by side.  The squares of a few
 * classes come one after another, so that a cache line of the array is used while it is there.  A
 * square is transposed by log2 rounds that interleave vector i with vector i + half. */
#define MOVE_SQUARES(bits, side)                                                                   \
    typedef uint##bits##_t vector_##bits __attribute__((vector_size(16)));                         \
    static void move_squares_##bits(char *packed, ptrdiff_t row_step, char *array, ptrdiff_t core, \
                                    ptrdiff_t rows, ptrdiff_t n, int packing)                      \
    {                                                                                              \
        const ptrdiff_t size = sizeof(uint##bits##_t);                                             \
        ptrdiff_t whole = n - n % side, whole_rows = rows - rows % side;                           \
        for (ptrdiff_t k = 0; k < whole; k += side) {                                              \
            for (int j = 0; j < side; j++)                                                         \
                ask_for(array, (k + AHEAD + j) * core, rows * size);                               \
            for (ptrdiff_t i = 0; i < whole_rows; i += side) {                                     \
                vector_##bits square[side], next[side];                                            \
                char *row = packed + i * row_step + k * size,                                      \
                     *class = array + k * core + i * size;                                         \
                for (int j = 0; j < side; j++)                                                     \
                    memcpy(&square[j], packing ? class + j * core : row + j * row_step, 16);       \
                for (int round = 1; round < side; round *= 2) {                                    \
                    for (int j = 0; j < side / 2; j++) {                                           \
                        vector_##bits a = square[j], b = square[j + side / 2];                     \
                        next[2 * j] = __builtin_shufflevector(a, b, LOW_PAIRS_##bits);             \
                        next[2 * j + 1] = __builtin_shufflevector(a, b, HIGH_PAIRS_##bits);        \
                    }                                                                              \
                    memcpy(square, next, sizeof square);                                           \
                }                                                                                  \
                for (int j = 0; j < side; j++)                                                     \
                    memcpy(packing ? row + j * row_step : class + j * core, &square[j], 16);       \
            }                                                                                      \
        }                                                                                          \
        for (ptrdiff_t k = 0; k < n; k++) /* what no square covers */                              \
            for (ptrdiff_t i = k < whole ? whole_rows : 0; i < rows; i++) {                        \
                char *row = packed + i * row_step + k * size,                                      \
                     *class = array + k * core + i * size;                                         \
                memcpy(packing ? row : class, packing ? class : row, sizeof(uint##bits##_t));      \
            }                                                                                      \
    }
MOVE_SQUARES(16, 8)
MOVE_SQUARES(32, 4)
MOVE_SQUARES(64, 2)
#endif

static ptrdiff_t distance(ptrdiff_t step) { return step < 0 ? -step : step; }

/* The same for any steps; the inner loop follows the array's smaller one. */
#define MOVE_ELEMENTS(bits)                                                                        \
    static void move_elements_##bits(char *packed, ptrdiff_t row_step, char *array,                \
                                     ptrdiff_t step, ptrdiff_t core, ptrdiff_t rows, ptrdiff_t n,  \
                                     int packing)                                                  \
    {                                                                                              \
        const ptrdiff_t size = sizeof(uint##bits##_t);                                             \
        int by_class = distance(step) < distance(core);                                            \
        for (ptrdiff_t a = 0; a < (by_class ? n : rows); a++)                                      \
            for (ptrdiff_t b = 0; b < (by_class ? rows : n); b++) {                                \
                ptrdiff_t i = by_class ? b : a, k = by_class ? a : b;                              \
                char *row = packed + i * row_step + k * size;                                      \
                char *element = array + i * step + k * core;                                       \
                memcpy(packing ? row : element, packing ? element : row, sizeof(uint##bits##_t));  \
            }                                                                                      \
    }
MOVE_ELEMENTS(16)
MOVE_ELEMENTS(32)
MOVE_ELEMENTS(64)

/* The sizes that are moved and filled. */
#define KLCE_DTYPE(name, elem, real)                                                               \
    _Static_assert(sizeof(elem) == 2 || sizeof(elem) == 4 || sizeof(elem) == 8, "see MOVE_BY");
#include "dtypes.def"
#undef KLCE_DTYPE

static void move(char *packed, ptrdiff_t row_step, char *array, ptrdiff_t step, ptrdiff_t core,
                 ptrdiff_t rows, ptrdiff_t n, size_t size, int packing)
{
#define MOVE_BY(move, ...)                                                                         \
    do {                                                                                           \
        if (size == 2)                                                                             \
            move##_16(__VA_ARGS__);                                                                \
        else if (size == 4)                                                                        \
            move##_32(__VA_ARGS__);                                                                \
        else                                                                                       \
            move##_64(__VA_ARGS__);                                                                \
    } while (0)
#if BY_SQUARES
    if (step == (ptrdiff_t)size && rows > 1) {
        MOVE_BY(move_squares, packed, row_step, array, core, rows, n, packing);
        return;
    }
#endif
    MOVE_BY(move_elements, packed, row_step, array, step, core, rows, n, packing);
#undef MOVE_BY
}

void klce_pack(char *packed, ptrdiff_t row_step, const char *array, ptrdiff_t step, ptrdiff_t core,
               ptrdiff_t rows, ptrdiff_t n, size_t size)
{
    if (core == (ptrdiff_t)size) {
        if (step == row_step && step == n * core) /* as one: a row may be a few bytes */
            n *= rows, rows = 1;
        for (ptrdiff_t i = 0; i < rows; i++)
            memcpy(packed + i * row_step, array + i * step, (size_t)n * size);
    } else
        move(packed, row_step, (char *)array, step, core, rows, n, size, 1);
}

void klce_unpack(char *array, ptrdiff_t step, ptrdiff_t core, const char *packed,
                 ptrdiff_t row_step, ptrdiff_t rows, ptrdiff_t n, size_t size)
{
    move((char *)packed, row_step, array, step, core, rows, n, size, 0);
}

/* Of a long piece one line is asked for: the hardware follows it by itself then. */
void klce_pack_strip(char *strip, ptrdiff_t strip_core, const char *array, ptrdiff_t core,
                     ptrdiff_t n, ptrdiff_t bytes)
{
    for (ptrdiff_t k = 0; k < n; k++) {
        ask_for(array, (k + AHEAD) * core, bytes <= SHORT ? bytes : LINE);
        memcpy(strip + k * strip_core, array + k * core, (size_t)bytes);
    }
}

void klce_unpack_strip(char *array, ptrdiff_t core, const char *strip, ptrdiff_t strip_core,
                       ptrdiff_t n, ptrdiff_t bytes)
{
    for (ptrdiff_t k = 0; k < n; k++) {
        ask_for(array, (k + AHEAD) * core, bytes <= SHORT ? bytes : LINE);
        memcpy(array + k * core, strip + k * strip_core, (size_t)bytes);
    }
}

/* The bits of minus infinity. */
static const uint64_t lowest[KLCE_DTYPE_COUNT] = {
    [KLCE_DTYPE_f32] = 0xff800000,
    [KLCE_DTYPE_f64] = 0xfff0000000000000,
    [KLCE_DTYPE_f16] = 0xfc00,
    [KLCE_DTYPE_bf16] = 0xff80,
};
_Static_assert(KLCE_DTYPE_COUNT == 4, "each dtype has its minus infinity");

/* By rows or classes that lie side by side in both; else the inner loop follows the mask's smaller
 * step. */
static void fill_masked(char *packed, ptrdiff_t row_step, ptrdiff_t packed_core, const klce_mask *m,
                        ptrdiff_t rows, ptrdiff_t n)
{
    const char *mask = m->first;
    ptrdiff_t mask_step = m->step, mask_core = m->core;
    uint64_t bits = m->fill == '0' ? 0 : lowest[m->dtype];
    if (mask_core == 1 && mask_step == n && row_step == n * packed_core) /* as one, likewise */
        n *= rows, rows = 1;
#define FILL(type)                                                                                 \
    do {                                                                                           \
        type filler = (type)bits;                                                                  \
        if (mask_core == 1 && packed_core == sizeof(type))                                         \
            for (ptrdiff_t i = 0; i < rows; i++) {                                                 \
                type *x = (type *)(packed + i * row_step);                                         \
                const char *counts = mask + i * mask_step;                                         \
                for (ptrdiff_t k = 0; k < n; k++) /* vectorised */                                 \
                    x[k] = counts[k] ? x[k] : filler;                                              \
            }                                                                                      \
        else if (row_step == sizeof(type) && (mask_step == 1 || mask_step == 0))                   \
            for (ptrdiff_t k = 0; k < n; k++) {                                                    \
                type *x = (type *)(packed + k * packed_core);                                      \
                const char *counts = mask + k * mask_core;                                         \
                ask_for(mask, (k + AHEAD) * mask_core, mask_step ? rows : 1);                      \
                if (mask_step)                                                                     \
                    for (ptrdiff_t i = 0; i < rows; i++) /* likewise */                            \
                        x[i] = counts[i] ? x[i] : filler;                                          \
                else if (!*counts)                                                                 \
                    for (ptrdiff_t i = 0; i < rows; i++)                                           \
                        x[i] = filler;                                                             \
            }                                                                                      \
        else if (distance(mask_step) < distance(mask_core))                                        \
            for (ptrdiff_t k = 0; k < n; k++)                                                      \
                for (ptrdiff_t i = 0; i < rows; i++) {                                             \
                    type *x = (type *)(packed + i * row_step + k * packed_core);                   \
                    *x = mask[i * mask_step + k * mask_core] ? *x : filler;                        \
                }                                                                                  \
        else                                                                                       \
            for (ptrdiff_t i = 0; i < rows; i++)                                                   \
                for (ptrdiff_t k = 0; k < n; k++) {                                                \
                    type *x = (type *)(packed + i * row_step + k * packed_core);                   \
                    *x = mask[i * mask_step + k * mask_core] ? *x : filler;                        \
                }                                                                                  \
    } while (0)
    if (klce_elem_sizes[m->dtype] == 2)
        FILL(uint16_t);
    else if (klce_elem_sizes[m->dtype] == 4)
        FILL(uint32_t);
    else
        FILL(uint64_t);
#undef FILL
}

/* Where the rows and the mask's lie side by side, by way of a strip of some rows and classes, in
 * which they still do, and are masked a vector at a time. */
void klce_pack_masked(char *packed, ptrdiff_t row_step, const char *array, ptrdiff_t step,
                      ptrdiff_t core, ptrdiff_t rows, ptrdiff_t n, const klce_mask *mask)
{
    enum { ROW_BYTES = 512, STRIP = 1 << 15, CLASSES = STRIP / (ROW_BYTES + LINE) };
    ptrdiff_t size = (ptrdiff_t)klce_elem_sizes[mask->dtype], most = ROW_BYTES / size;
    _Alignas(LINE) uint64_t room[STRIP / sizeof(uint64_t)];
    char *strip = (char *)room;
    if (step != size || core == size || (mask->step != 0 && mask->step != 1)) {
        klce_pack(packed, row_step, array, step, core, rows, n, (size_t)size);
        fill_masked(packed, row_step, size, mask, rows, n);
        return;
    }
    for (ptrdiff_t i = 0; i < rows; i += most)
        for (ptrdiff_t k = 0; k < n; k += CLASSES) {
            ptrdiff_t count = CLASSES < n - k ? CLASSES : n - k;
            ptrdiff_t beside = most < rows - i ? most : rows - i;
            ptrdiff_t strip_core = klce_strip_core(beside * size);
            klce_mask own = *mask;
            own.first += i * own.step + k * own.core;
            klce_pack_strip(strip, strip_core, array + i * size + k * core, core, count,
                            beside * size);
            fill_masked(strip, size, strip_core, &own, beside, count);
            klce_pack(packed + i * row_step + k * size, row_step, strip, size, strip_core, beside,
                      count, (size_t)size);
        }
}

void klce_pack_masked_strip(char *strip, ptrdiff_t strip_core, const char *array, ptrdiff_t core,
                            ptrdiff_t rows, ptrdiff_t n, const klce_mask *mask)
{
    ptrdiff_t size = (ptrdiff_t)klce_elem_sizes[mask->dtype];
    klce_pack_strip(strip, strip_core, array, core, n, rows * size);
    fill_masked(strip, size, strip_core, mask, rows, n);
}
