/* loss_log_probs: the loss of log-probabilities. */

static void K(loss_log_probs_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                    ptrdiff_t high, double *state)
{
    K(sweep_loss)(call, K(LOG_PROBS), 0, row, low, high, state);
}

static void K(loss_log_probs_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                     double *state)
{
    K(plain_loss_finish)(call, K(LOG_PROBS), row, count, state);
}

static void K(loss_log_probs_few)(const klce_call *call, ptrdiff_t row)
{
    K(plain_loss_few)(call, K(LOG_PROBS), row);
}

static const klce_kernel K(loss_log_probs_kernel) = {
    .prepare = K(loss_prepare),
    .pass = {{K(loss_log_probs_sweep), SHARED(plain_loss_merge), K(loss_log_probs_finish)}},
    .few = TILE_OF(loss_log_probs_few),
};
