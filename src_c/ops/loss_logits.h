/* loss_logits: -log q_c = (max - x_c)/T + log1p(rest), and z_loss * lse^2 comes to the loss.  Terms are
 * not negative, so nothing cancels.  Each segment of a row is looked at twice, the second time in
 * cache: distances are from the maximum. */

enum { K(SUMS) = K(WEIGHTED) }; /* the sums stand behind the fields of expsum.h */
enum { K(TEMPERATURE) = K(SMOOTHING) + 1, K(Z_LOSS), K(LOGITS_OUT) };

static void K(loss_logits_prepare)(klce_call *call)
{
    K(expsum_prepare)(call, *(const double *)call->arg[K(TEMPERATURE)]);
}

/* From where distances are measured: where all is -inf, from 0. */
KLCE_INLINE double K(top_of)(double max) { return max == -INFINITY ? 0 : max; }

static void K(loss_logits_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low,
                                 ptrdiff_t high, double *state)
{
    K(sum_exp)(K(context)(call), K(row_in)(call, 0, row) + low, high - low, state);
    real top = (real)K(top_of)(state[FIELD(MAX)]);
    K(sweep_loss)(call, K(LOGITS), top, row, low, high, state + FIELD(SUMS));
}

static void K(loss_logits_merge)(const klce_call *call, double *into, const double *from)
{
    double top =
        K(top_of)(into[FIELD(MAX)] < from[FIELD(MAX)] ? from[FIELD(MAX)] : into[FIELD(MAX)]);
    double up = top - K(top_of)(into[FIELD(MAX)]), from_up = top - K(top_of)(from[FIELD(MAX)]);
    double *sums = into + FIELD(SUMS);
    const double *more = from + FIELD(SUMS);
    for (int f = K(BY_TARGET); f <= K(BY_ALL); f++) {
        int at = f * KLCE_TILE, mass = at + FIELD(MASS_BY_TARGET);
        sums[at] = K(add_weighed)(sums[at] + more[at], sums[mass], up);
        sums[at] = K(add_weighed)(sums[at], more[mass], from_up);
        sums[mass] += more[mass];
    }
    K(expsum_merge)(call, into, from);
}

static void K(loss_logits_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                  double *state)
{
    const K(expsum_context) *c = K(context)(call);
    K(mix) mix = K(mix_of)(call);
    K(picked) picked;
    double z_loss = *(const double *)call->arg[K(Z_LOSS)];
    double distance[KLCE_TILE], log[KLCE_TILE], extra[KLCE_TILE];
    K(pick_tile)(call, !mix.soft, row, count, &picked);
    EACH_STATE(i, count) store_f64(log + i, K(log_of_rest)(c, state, i));
    for (ptrdiff_t i = 0; i < count; i++) {
        double max = state[FIELD(MAX) + i], lse = max / c->t + log[i];
        distance[i] = max - picked.q[i];
        /* An infinite maximum leaves no distribution: inf - inf is nan. */
        extra[i] = (max - max) + (z_loss != 0 ? z_loss * lse * lse : 0);
    }
    const K(loss_tile) tile = {c->t, distance, log, extra, state + FIELD(SUMS)};
    K(put_losses)(call, K(LOGITS_OUT), row, count, &mix, &picked, &tile);
}

static const klce_kernel K(loss_logits_kernel) = {
    .prepare = K(loss_logits_prepare),
    .pass = {{K(loss_logits_sweep), K(loss_logits_merge), K(loss_logits_finish)}},
};
