/* The bodies of all ops for one dtype.  kernels.h includes this once per dtype, so it has no
 * guard.  A new op is a line here and a row in ops.def. */
#include "operands.h"
#include "chunk_sums.h"
#include "labels.h"
#include "sums.h"
#include "looks.h"
#include "few.h"
#include "state.h"
#include "statistics.h"

#include "measure.h"
#include "expsum_state.h"
#include "expsum.h"
#include "expsum_few.h"
#include "top.h"
#include "top_few.h"

#include "ops/logsumexp.h"
#include "ops/logsumexp_scaled.h"
#include "ops/softmax.h"
#include "ops/log_softmax.h"

#include "ops/nll.h"
#include "ops/nll_probs.h"
#include "ops/cross_entropy.h"

#include "ops/loss.h"
#include "ops/weighted_nll.h"
#include "ops/weighted_nll_probs.h"
#include "ops/loss_logits.h"
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
#include "ops/kl_logits.h"
#include "ops/pairs.h"
#include "ops/kl_pairs.h"
#include "ops/js_pairs.h"
#include "ops/js_logits.h"
#include "ops/js_probs.h"
#include "ops/rel_entr.h"

#include "ops/score.h"
#include "ops/compare.h"

static const klce_kernel *const K(kernels)[KLCE_OP_COUNT] = {
#define KLCE_OP(name, signature, fills) [KLCE_OP_##name] = &K(name##_kernel),
#include "ops.def"
#undef KLCE_OP
};

/* Macros that more than their own file uses.  The others end with their file;
 * no two files have one of the same name. */
#undef EACH_GROUP
#undef EACH_LANE
#undef HALVES
#undef EACH_STATE
#undef WANTS
#undef TOP_FEW
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
#undef UNLIKE_JS
#undef UNLIKE_VARIATION
#undef LOG_2
#undef PAIR_PASSES
#undef PAIR_FEW
#undef PAIR_TABLE
#undef PAIR_KERNEL
