/* The sums of exponentials of rows of many classes that lie side by side, block by block: to the
 * bits of expsum.h, whose rows are of one BLOCK of classes at most here, so that their maximum is
 * the only one. */

/* Puts values in the place of the rows' first maxima, but those of -inf. */
KLCE_INLINE void K(put_maxima)(K(blocks) *b, const real *value)
{
    for (int row = 0; row < KLCE_ABREAST; row++) {
        ptrdiff_t first = (ptrdiff_t)((const real *)b->first)[row];
        if (first >= 0)
            ((real *)K(columns_at)(b->now, first, row / WIDTH))[row % WIDTH] = value[row];
    }
}

/* As settle_infinite, of the rows of vector w, from the array: a panel may hold others by now. */
static KLCE_NOINLINE void K(settle_infinite_block)(const K(blocks) *b, int w, double *state,
                                                   int moments)
{
    for (int k = 0; k < WIDTH; k++) {
        if (fabs(state[FIELD(MAX) + k]) < INFINITY)
            continue;
        int any_nan = 0;
        for (ptrdiff_t j = 0; j < b->call->n; j++)
            any_nan |= isnan(K(value)(*K(class_of)(&b->own, 0, b->row + w * WIDTH + k, j)));
        K(leave_infinite)(any_nan, moments, state + k);
    }
}

/* The maxima, which stay out of the sums, are missing from the panel afterwards. */
KLCE_INLINE void K(expsum_block)(const K(expsum_context) *c, K(blocks) *b,
                                 K(abreast_states) *states, int moments)
{
    enum { STEP = KLCE_PANEL_CLASSES };
    const ptrdiff_t n = b->call->n;
    const K(few_asked) asked = {.moments = moments, .lanes = LANES, .flush = FLUSH};
    K(few_sweep) s[K(ABREAST_VECTORS)];
    K(few_sums) sums[K(ABREAST_VECTORS)];
    K(column_lanes) rest[K(ABREAST_VECTORS)], weighted[K(ABREAST_VECTORS)];
    real none[KLCE_ABREAST];
    for (int row = 0; row < KLCE_ABREAST; row++)
        none[row] = (real)-INFINITY;
    K(put_maxima)(b, none);
    memset(rest, 0, sizeof rest);
    if (moments)
        memset(weighted, 0, sizeof weighted);
    for (int w = 0; w < K(ABREAST_VECTORS); w++)
        s[w] = K(few_sweep_of)(c, b->max[w]);
    ptrdiff_t j = 0, moved = 0;
    for (ptrdiff_t end; j < n; j = end) {
        end = KLCE_LESSER(j + FLUSH, n);
        const int lanes = (int)KLCE_LESSER(LANES, end - j);
        for (; j + STEP <= end; j += STEP)
            for (int w = 0; w < K(ABREAST_VECTORS); w++) {
                const K(v) *x = K(columns_at)(b->now, j, w);
                if (moved < j)
                    K(move_class)(b, moved++, 1);
                KLCE_UNROLL for (int k = 0; k < STEP; k += KLCE_BESIDE)
                    K(add_exp_columns)(c, &s[w], asked, x + k, j + k, KLCE_BESIDE, &sums[w]);
            }
        for (; j < end; j++)
            for (int w = 0; w < K(ABREAST_VECTORS); w++)
                K(add_exp_columns)(c, &s[w], asked, K(columns_at)(b->now, j, w), j, 1, &sums[w]);
        for (int w = 0; w < K(ABREAST_VECTORS); w++)
            for (int l = 0; l < lanes; l++) {
                K(add_column_lane)(&rest[w], l, &sums[w].sum[l]);
                K(add_column_lane)(&rest[w], l, &sums[w].tail[l]);
                if (moments)
                    K(add_column_lane)(&weighted[w], l, &sums[w].weighted[l]);
            }
    }
    for (int w = 0; w < K(ABREAST_VECTORS); w++) {
        double *state = K(state_of_vector)(states, w);
        K(store_references)(s[w].max, &s[w].r, state);
        K(total_columns)(&rest[w], state + FIELD(REST));
        if (moments)
            K(total_columns)(&weighted[w], state + FIELD(WEIGHTED));
        K(settle_infinite_block)(b, w, state, moments);
    }
    while (moved < n)
        K(move_class)(b, moved++, 1);
}

/* Rows [low, high), by whole blocks, whose states go to `finish`; returns the first one left. */
KLCE_INLINE ptrdiff_t K(expsum_blocks)(const klce_call *call, ptrdiff_t low, ptrdiff_t high,
                                       void *scratch, int moments, klce_finish finish)
{
    /* A copy: what is stored might change the call's, for all that the compiler knows. */
    const K(expsum_context) context = *K(context)(call);
    K(abreast_states) states;
    K(blocks) b;
    K(first_block)(&b, call, 0, low, high, scratch, 1);
    do {
        K(expsum_block)(&context, &b, &states, moments);
        K(finish_block)(&b, &states, finish);
    } while (K(next_block)(&b));
    return b.at;
}

static KLCE_NOINLINE ptrdiff_t K(sum_exp_blocks)(const klce_call *call, ptrdiff_t low,
                                                 ptrdiff_t high, void *scratch, klce_finish finish)
{
    return K(expsum_blocks)(call, low, high, scratch, 0, finish);
}

static KLCE_NOINLINE ptrdiff_t K(sum_exp_and_weighted_blocks)(const klce_call *call, ptrdiff_t low,
                                                              ptrdiff_t high, void *scratch,
                                                              klce_finish finish)
{
    return K(expsum_blocks)(call, low, high, scratch, 1, finish);
}
