/* Bringing rows together in scratch memory, and back: the classes of a row, or, where the rows of
 * an array lie side by side, some rows of each class. */
#ifndef KLCE_PACK_H
#define KLCE_PACK_H

#include "klce.h"

/* The bytes from one packed row to the next. */
ptrdiff_t klce_packed_step(ptrdiff_t n, size_t size);

/* Row i stands at packed + i*row_step; element k of row i of the array at
 * array + i*step + k*core. */
void klce_pack(char *packed, ptrdiff_t row_step, const char *array, ptrdiff_t step, ptrdiff_t core,
               ptrdiff_t rows, ptrdiff_t n, size_t size);
void klce_unpack(char *array, ptrdiff_t step, ptrdiff_t core, const char *packed,
                 ptrdiff_t row_step, ptrdiff_t rows, ptrdiff_t n, size_t size);

/* `bytes` of each of n classes, from or to strip + k*strip_core and array + k*core; and what is to
 * be the strip's core. */
ptrdiff_t klce_strip_core(ptrdiff_t bytes);
void klce_pack_strip(char *strip, ptrdiff_t strip_core, const char *array, ptrdiff_t core,
                     ptrdiff_t n, ptrdiff_t bytes);
void klce_unpack_strip(char *array, ptrdiff_t core, const char *strip, ptrdiff_t strip_core,
                       ptrdiff_t n, ptrdiff_t bytes);

/* Which classes count: a byte each (0: left out), class k of row i at first + i*step + k*core; and
 * what is put for the others, see ops.def. */
typedef struct {
    const char *first;
    ptrdiff_t step, core;
    klce_dtype dtype;
    char fill;
} klce_mask;
void klce_pack_masked(char *packed, ptrdiff_t row_step, const char *array, ptrdiff_t step,
                      ptrdiff_t core, ptrdiff_t rows, ptrdiff_t n, const klce_mask *mask);
void klce_pack_masked_strip(char *strip, ptrdiff_t strip_core, const char *array, ptrdiff_t core,
                            ptrdiff_t rows, ptrdiff_t n, const klce_mask *mask);

#endif
