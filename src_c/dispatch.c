/* What the lists name, as tables, and the choice of the ISA whose kernels run. */
#include "klce.h"

#include <string.h>

const char *const klce_op_names[KLCE_OP_COUNT] = {
#define KLCE_OP(name, signature, fills) #name,
#include "ops.def"
#undef KLCE_OP
};

/* Beside its operands a signature has one `>`, and the end of a string. */
#define KLCE_OP(name, signature, fills)                                                            \
    _Static_assert(sizeof(signature) - 2 <= KLCE_MAX_ARGS, "a call has room for the operands");
#include "ops.def"
#undef KLCE_OP

const char *const klce_op_signatures[KLCE_OP_COUNT] = {
#define KLCE_OP(name, signature, fills) signature,
#include "ops.def"
#undef KLCE_OP
};

const char *const klce_op_fills[KLCE_OP_COUNT] = {
#define KLCE_OP(name, signature, fills) fills,
#include "ops.def"
#undef KLCE_OP
};

#define STATISTIC(op, name, letter, of_target) {#name, letter, of_target},
#define NOTHING(op, name, letter, of_target)
const klce_statistic klce_score_statistics[KLCE_SCORE_COUNT] = {
#define KLCE_SCORE STATISTIC
#define KLCE_COMPARE NOTHING
#include "statistics.def"
#undef KLCE_SCORE
#undef KLCE_COMPARE
};
const klce_statistic klce_compare_statistics[KLCE_COMPARE_COUNT] = {
#define KLCE_SCORE NOTHING
#define KLCE_COMPARE STATISTIC
#include "statistics.def"
#undef KLCE_SCORE
#undef KLCE_COMPARE
};
#undef STATISTIC
#undef NOTHING

const char *const klce_dtype_names[KLCE_DTYPE_COUNT] = {
#define KLCE_DTYPE(name, elem, real) #name,
#include "dtypes.def"
#undef KLCE_DTYPE
};

const size_t klce_elem_sizes[KLCE_DTYPE_COUNT] = {
#define KLCE_DTYPE(name, elem, real) sizeof(elem),
#include "dtypes.def"
#undef KLCE_DTYPE
};

const size_t klce_real_sizes[KLCE_DTYPE_COUNT] = {
#define KLCE_DTYPE(name, elem, real) sizeof(real),
#include "dtypes.def"
#undef KLCE_DTYPE
};

static const klce_isa *const isas[] = {
#define KLCE_ISA(name) &klce_isa_##name,
#include "isas.def"
#undef KLCE_ISA
};

/* Threads may call while another selects. */
static _Atomic(const klce_isa *) active = &klce_isa_baseline;

int klce_isa_count(void) { return (int)(sizeof isas / sizeof *isas); }

const klce_isa *klce_isa_at(int index) { return isas[index]; }

const klce_isa *klce_active_isa(void)
{
    return atomic_load_explicit(&active, memory_order_relaxed);
}

int klce_select_isa(const char *name)
{
    for (int i = klce_isa_count() - 1; i >= 0; i--) {
        if (name ? strcmp(isas[i]->name, name) != 0 : !isas[i]->supported())
            continue;
        if (!isas[i]->supported())
            return -2;
        atomic_store(&active, isas[i]);
        return 0;
    }
    return -1;
}
