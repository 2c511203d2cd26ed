/* loss_probs: the same of probabilities. */

static void K(loss_probs_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                                double *state)
{
    K(sweep_loss)(call, K(PROBS), 0, row, low, high, state);
}

static void K(loss_probs_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                 double *state)
{
    K(plain_loss_finish)(call, K(PROBS), row, count, state);
}

static void K(loss_probs_few)(const klce_call *call, ptrdiff_t row)
{
    K(plain_loss_few)(call, K(PROBS), row);
}

static const klce_kernel K(loss_probs_kernel) = {
    .prepare = K(loss_prepare),
    .pass = {{K(loss_probs_sweep), SHARED(plain_loss_merge), K(loss_probs_finish)}},
    .few = TILE_OF(loss_probs_few),
};
