/* loss_logits: -log q_c = (max - x_c)/T + log1p(rest), and z_loss * lse^2 comes to the loss.  Terms
 * are not negative, so nothing cancels.  Each segment of a row is looked at twice, the second time
 * in cache: distances are from the maximum. */

/* The sums stand behind the fields of expsum.h. */
enum { K(SUMS) = K(WEIGHTED), K(LAST_SUM) = K(SUMS) + K(MASS_BY_ALL) };
LAST_FIELD(LAST_SUM);

enum { K(TEMPERATURE) = K(SMOOTHING) + 1, K(Z_LOSS), K(LOGITS_OUT) };

static void K(loss_logits_prepare)(klce_call *call)
{
    K(loss_prepare)(call);
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

KLCE_INLINE void K(put_losses_of_logits)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                         const K(mix) *mix, const K(picked) *picked,
                                         const double *state)
{
    const K(expsum_context) *c = K(context)(call);
    double z_loss = *(const double *)call->arg[K(Z_LOSS)];
    double distance[KLCE_TILE], log[KLCE_TILE], extra[KLCE_TILE];
    EACH_STATE(i, count)
    {
        v_f64 max = K(state)(state, K(MAX), i), rest = K(log_of_rest)(c, state, i);
        /* An infinite maximum leaves no distribution: inf - inf is nan. */
        v_f64 penalty = max - max, lse = max / set_f64(c->t) + rest;
        if (z_loss != 0)
            penalty = penalty + set_f64(z_loss) * lse * lse;
        store_f64(log + i, rest);
        store_f64(distance + i, max - load_f64(picked->at.value + i));
        store_f64(extra + i, penalty);
    }
    const K(loss_tile) tile = {c->t, distance, log, extra, state + FIELD(SUMS)};
    K(put_losses)(call, K(LOGITS_OUT), row, count, mix, picked, &tile);
}

static void K(loss_logits_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                  double *state)
{
    K(mix) mix = K(mix_of)(call);
    K(picked) picked = {0};
    K(pick_tile)(call, !mix.soft, row, count, &picked);
    K(put_losses_of_logits)(call, row, count, &mix, &picked, state);
}

static void K(loss_logits_few)(const klce_call *call, ptrdiff_t row)
{
    double state[KLCE_FIELDS * KLCE_TILE];
    K(mix) mix = K(mix_of)(call);
    K(picked) picked;
    K(tile) tile;
    if (!K(loss_has_few)(call)) {
        for (int i = 0; i < KLCE_TILE; i++)
            K(loss_logits_sweep)(call, row + i, 0, call->n, state + i);
        K(loss_logits_finish)(call, row, KLCE_TILE, state);
        return;
    }
    if (mix.soft) {
        K(sum_exp_few)(call, 0, row, &tile, state);
        K(pick_tile)(call, 0, row, KLCE_TILE, &picked);
    } else {
        K(read_labels)(call, row, KLCE_TILE, &picked.at);
        K(sum_exp_at_labels_few)(call, row, &tile, state, &picked.at);
        K(pick_weights)(call, row, KLCE_TILE, &picked);
    }
    if (mix.soft || mix.smooth)
        K(sum_loss_few)(call, K(LOGITS), &tile, state + FIELD(MAX), row, state + FIELD(SUMS));
    K(put_losses_of_logits)(call, row, KLCE_TILE, &mix, &picked, state);
}

/* Against an index alone: other targets are read class by class. */
static ptrdiff_t K(loss_logits_pipelined)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(mix) mix = K(mix_of)(call);
    return mix.soft || mix.smooth ? low : K(sum_exp_rows)(call, low, high, K(loss_logits_finish));
}

static const klce_kernel K(loss_logits_kernel) = {
    .prepare = K(loss_logits_prepare),
    .pass = {{K(loss_logits_sweep), SHARED(loss_logits_merge), K(loss_logits_finish)}},
    .few = TILE_OF(loss_logits_few),
    .pipelined = K(loss_logits_pipelined),
};
