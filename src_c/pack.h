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

/* `bytes` of each of n classes, from or to panel + k*panel_core and array + k*core; and what is to
 * be the panel's core. */
ptrdiff_t klce_panel_core(ptrdiff_t bytes);
void klce_pack_panel(char *panel, ptrdiff_t panel_core, const char *array, ptrdiff_t core,
                     ptrdiff_t n, ptrdiff_t bytes);
void klce_unpack_panel(char *array, ptrdiff_t core, const char *panel, ptrdiff_t panel_core,
                       ptrdiff_t n, ptrdiff_t bytes);

/* Puts what stands for a class that is left out, see ops.def, where packed rows are masked: class
 * k of row i at packed + i*row_step + k*packed_core. */
void klce_fill_masked(char *packed, ptrdiff_t row_step, ptrdiff_t packed_core, const char *mask,
                      ptrdiff_t mask_step, ptrdiff_t mask_core, ptrdiff_t rows, ptrdiff_t n,
                      klce_dtype dtype, char fill);

#endif
