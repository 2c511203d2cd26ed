/* Sums of results by chunks of KLCE_SUM_CHUNK; the last one may be shorter. */
#ifndef KLCE_SUM_H
#define KLCE_SUM_H

#include "klce.h"

/* Within the environment of kernels. */
void klce_sum_chunks(klce_dtype dtype, const char *values, ptrdiff_t count, ptrdiff_t step,
                     double *sums);

/* The total of chunks' sums: what klce_sum gives for their values. */
double klce_total_of_chunks(const double *sums, ptrdiff_t count);

#endif
