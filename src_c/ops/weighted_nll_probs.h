/* weighted_nll_probs: as weighted_nll, from probabilities. */

static void K(weighted_nll_probs_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(weighted_nll)(call, low, high, K(PROBS));
}

static const klce_kernel K(weighted_nll_probs_kernel) = {.rows = K(weighted_nll_probs_rows)};
