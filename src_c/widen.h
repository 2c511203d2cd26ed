/* Rows of few classes whose elements are computed in another dtype than their own. */
#ifndef KLCE_WIDEN_H
#define KLCE_WIDEN_H

#include "klce.h"

/* Whether an op has that. */
int klce_widens(klce_op op, const klce_isa *isa);

/* Runs rows [low, high), of at most KLCE_FEW_BYTES, by whole tiles; returns where the rest begins.
 * The ISA is the one whose kernel prepared the call: its constants are no other's. */
ptrdiff_t klce_run_few_widened(const klce_call *call, const klce_isa *isa, ptrdiff_t low,
                               ptrdiff_t high);

#endif
