/* The bodies of all ops for one dtype.  kernels.h includes this once per dtype, so it has no guard;
 * it defines the dtype's suffix R, `elem`, what memory holds of it, and the bits of that.  A new op
 * is a line here and a row in ops.def. */

/* What elements are computed in, and its suffix. */
#if KLCE_ELEM_BITS == 64
#define KLCE_REAL_IS_F64 1
#define C f64
#define real double
#else
#define KLCE_REAL_IS_F64 0
#define C f32
#define real float
#endif
enum { K(ELEM_BYTES) = sizeof(elem), K(REAL_BYTES) = sizeof(real) };
_Static_assert(K(ELEM_BYTES) * 8 == KLCE_ELEM_BITS, "KLCE_ELEM_BITS are those of elem");

#include "operands.h"
#include "conversions.h"
#include "chunk_sums.h"
#include "labels.h"
#include "sums.h"
#include "looks.h"
#include "few.h"
#include "few_rows.h"
#include "state.h"
#include "abreast.h"
#include "panels.h"
#include "statistics.h"

#include "measure.h"
#include "expsum_state.h"
#include "stored_row.h"
#include "log_row.h"
#include "expsum.h"
#include "expsum_rows.h"
#include "expsum_few.h"
#include "expsum_abreast.h"
#include "top.h"
#include "top_few.h"

#include "ops/logsumexp.h"
#include "ops/logsumexp_scaled.h"
#include "ops/softmax_terms.h"
#include "ops/softmax_few.h"
#include "ops/softmax.h"
#include "ops/log_softmax.h"

#include "ops/nll.h"
#include "ops/nll_probs.h"
#include "ops/cross_entropy.h"

#include "ops/loss.h"
#include "ops/weighted_nll.h"
#include "ops/weighted_nll_probs.h"
#include "ops/loss_logits.h"
#include "ops/plain_loss.h"
#include "ops/loss_log_probs.h"
#include "ops/loss_probs.h"

#include "ops/entropy_logits.h"
#include "ops/entropy_log_probs.h"
#include "ops/raised.h"
#include "ops/entropy_probs.h"
#include "ops/information.h"
#include "ops/binary_entropy.h"
#include "ops/binary_cross_entropy_probs.h"
#include "ops/binary_cross_entropy_logits.h"

#include "ops/kl_probs.h"
#include "ops/kl_log_probs.h"
#include "ops/logit_pairs.h"
#include "ops/near_logits.h"
#include "ops/unlike.h"
#include "ops/unlike_logits.h"
#include "ops/pair_terms.h"
#include "ops/kl_logits.h"
#include "ops/pairs.h"
#include "ops/kl_pairs.h"
#include "ops/js_pairs.h"
#include "ops/js_logits_logits.h"
#include "ops/js_probs_probs.h"
#include "ops/rel_entr.h"

#include "ops/score.h"
#include "ops/compare.h"

static const klce_kernel *const K(kernels)[KLCE_OP_COUNT] = {
#define KLCE_OP(name, signature, fills) [KLCE_OP_##name] = &K(name##_kernel),
#include "ops.def"
#undef KLCE_OP
};

/* Macros that more than their own file uses.  The others end with their file. */
#undef EACH_GROUP
#undef EACH_LANE
#undef HALVES
#undef EACH_STATE
#undef EACH_ABREAST
#undef ABREAST_OF
#undef OVER_PANEL
#undef EACH_IN_STEP
#undef WANTS
#undef TOP_FEW
#undef SQUARE_BITS
#undef LEAST_APART
#undef BOOST
#undef UNBOOST
#undef FLOOR
#undef SMALLEST_NORMAL
#undef SMALL
#undef RAISE
#undef RAISED
#undef UNRAISED
#undef PAIR_UNBOOST
#undef STEEPEST
#undef UNLIKE_SAMPLE
#undef UNLIKE_JS
#undef UNLIKE_VARIATION
#undef PAIR_PASSES
#undef PAIR_FEW
#undef PAIR_TABLE
#undef PAIR_KERNEL

/* The dtype, which is the next one after this. */
#undef KLCE_REAL_IS_F64
#undef C
#undef real
#undef R
#undef elem
#undef KLCE_ELEM_BITS
