/* softmax: the maximum, the sum, the quotients.
 *
 * Rows are taken in one loop: while a row's exponentials are summed, and kept in scratch memory,
 * the quotients of the row before are stored, which stands there until then, and the maximum of the
 * row after is looked for.  Where rows are split, or too long to be kept, each of the three is a
 * pass of its own: the second leaves the exponentials in the output, if that has room for them and
 * is not the input, or else the third computes them again, to the same bits.
 */

static void K(softmax_max)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                           double *state)
{
    state[FIELD(MAX)] = K(max_of)(K(row_in)(call, 0, row) + low, high - low);
}

static void K(softmax_merge_max)(const klce_call *call, double *into, const double *from)
{
    (void)call;
    if (from[FIELD(MAX)] > into[FIELD(MAX)])
        into[FIELD(MAX)] = from[FIELD(MAX)];
}

static void K(softmax_refer)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    (void)row;
    for (ptrdiff_t i = 0; i < count; i++) {
        real origin, ref;
        K(reference_of)(K(context)(call), (real)state[FIELD(MAX) + i], &origin, &ref);
        state[FIELD(ORIGIN) + i] = origin;
        state[FIELD(REF) + i] = ref;
    }
}

KLCE_INLINE void K(softmax_add_groups)(const K(expsum_context) *c, const K(measure) *from,
                                       K(v) *group, K(v) *sum, K(v) *lost, int groups)
{
    int beside = KLCE_LESSER(groups * VECTORS, KLCE_BESIDE);
    K(exp_pair) e[KLCE_BESIDE];
    KLCE_UNROLL for (int first = 0; first < groups * VECTORS; first += beside)
    {
        K(exps_lifted)(c, from, group + first, e, beside);
        KLCE_UNROLL for (int i = 0; i < beside; i++)
        {
            int v = (first + i) % VECTORS;
            group[first + i] = K(joined)(e[i]);
            K(add_exp)(e[i], group[first + i], &sum[v], &lost[v]);
        }
    }
}

static void K(softmax_merge)(const klce_call *call, double *into, const double *from)
{
    (void)call;
    into[FIELD(SUM)] += from[FIELD(SUM)];
}

/* Where passes leave a row's exponentials; NULL for nowhere. */
KLCE_INLINE real *K(kept_in_output)(const klce_call *call, ptrdiff_t row)
{
    int has_room = sizeof(elem) == sizeof(real) && call->arg[0] != call->arg[2] &&
                   call->n * (ptrdiff_t)sizeof(real) <= KLCE_KEPT_BYTES;
    return has_room ? (real *)(void *)K(row_out)(call, 2, row) : NULL;
}

static void K(softmax_emit)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                            double *state)
{
    const K(expsum_context) context = *K(context)(call), *c = &context;
    const elem *x = K(row_in)(call, 0, row);
    elem *y = K(row_out)(call, 2, row);
    const K(measure) from = K(lifted_from)(call, state);
    const K(row_factors) factors = K(row_factors_of)(state);
    const real *kept = K(kept_in_output)(call, row);
    K(v) group[VECTORS];
    for (ptrdiff_t i = low; i < high; i += LANES) {
        if (kept) {
            V(load_group)(kept + i, high - i, LIFTED_SMALL, group);
        } else {
            K(load_group)(x + i, high - i, (real)state[FIELD(MAX)], group);
            EACH_VECTOR(v) group[v] = K(joined)(K(exp_lifted)(c, &from, group[v]));
            K(prefetch_stored)(y + i);
        }
        K(divide_group)(&factors, group);
        K(store_group)(y + i, high - i, group);
    }
}

/* A row whose exponentials are kept, to be stored while the next row is summed (stored_row.h). */
typedef struct {
    K(row_way) way;
    const real *kept; /* from where it goes on to be stored */
    elem *y;
    ptrdiff_t left; /* classes */
} K(kept_row);

KLCE_INLINE void K(put_kept)(const K(kept_row) *row, const K(row_factors) *factors, ptrdiff_t k,
                             ptrdiff_t count, K(row_way) way)
{
    K(v) group[VECTORS];
    V(load_group)(row->kept + k, count, LIFTED_SMALL, group);
    K(divide_group)(factors, group);
    K(store_along)(row->y + k, count, group, way);
}

/* All from class k on, as put_logs_from. */
static KLCE_NOINLINE void K(put_kept_from)(ptrdiff_t k, K(row_way) way, const real *kept, elem *y,
                                           ptrdiff_t left, const K(row_factors) *row_factors)
{
    const K(kept_row) own = {way, kept, y, left};
    const K(row_factors) factors = *row_factors;
    for (; k < left; k += LANES)
        K(put_kept)(&own, &factors, k, left - k, way);
}

/* As put_logs_along. */
KLCE_INLINE void K(put_kept_along)(K(kept_row) *row, const K(row_factors) *factors, ptrdiff_t k,
                                   ptrdiff_t count, int groups, K(row_way) way)
{
    if (way == K(TO_CACHE) || k + groups * LANES <= row->left) {
        KLCE_UNROLL for (int g = 0; g < groups; g++, k += LANES)
            K(put_kept)(row, factors, k, count, way);
    } else {
        K(put_kept_from)(k, way, row->kept, row->y, row->left, factors);
        row->left = 0;
    }
}

/* What goes along with a row's sum. */
typedef struct {
    K(kept_row) behind; /* the row before, */
    const K(row_factors) *factors;
    const elem *next;  /* the row after, */
    K(peak) next_peak; /* and the largest of its whole groups */
} K(softmax_along);

/* The exponentials go to `kept`, if there is such memory.  22 instructions a vector in float32 (1
 * to load, 2 to measure, 13 of exp, 1 to join, 5 to add); with what goes along 43, moves, requests
 * and the loop's own among them. */
KLCE_INLINE void K(softmax_sum)(const klce_call *call, const elem *x, ptrdiff_t n, double *state,
                                real *kept, K(softmax_along) *along, K(row_way) way)
{
    /* A copy: what is stored might change the call's, for all that the compiler knows. */
    const K(expsum_context) context = *K(context)(call), *c = &context;
    const K(measure) from = K(lifted_from)(call, state);
    K(row_factors) factors;
    K(lanes) total = K(no_lanes)();
    K(v) group[GROUPS * VECTORS], sum[VECTORS], lost[VECTORS];
    EACH_VECTOR(v)
    {
        sum[v] = K(set)(ANCHOR);
        lost[v] = K(set)(0);
    }
    if (way != K(NO_ROW))
        factors = *along->factors;
    ptrdiff_t i = 0;
    for (; i + GROUPS * LANES <= n; i += GROUPS * LANES) {
        KLCE_UNROLL for (ptrdiff_t g = 0, k = i; g < GROUPS; g++, k += LANES)
        {
            K(prefetch_group)((along ? along->next : x) + k);
            if (kept && !along) /* else it is in cache */
                V(prefetch_stored)(kept + k);
            if (along)
                K(raise_peak)(&along->next_peak, along->next + k);
            K(load_group)(x + k, LANES, 0, group + g * VECTORS);
        }
        K(softmax_add_groups)(c, &from, group, sum, lost, GROUPS);
        if (way != K(NO_ROW))
            K(put_kept_along)(&along->behind, &factors, i, LANES, GROUPS, way);
        if (kept)
            KLCE_UNROLL for (int g = 0; g < GROUPS; g++)
                V(store_group)(kept + i + g * LANES, LANES, group + g * VECTORS);
    }
    for (; i < n; i += LANES) {
        if (along && i + LANES <= n)
            K(raise_peak)(&along->next_peak, along->next + i);
        K(load_group)(x + i, n - i, (real)-INFINITY, group);
        K(softmax_add_groups)(c, &from, group, sum, lost, 1);
        if (way != K(NO_ROW))
            K(put_kept_along)(&along->behind, &factors, i, n - i, 1, way);
        if (kept)
            V(store_group)(kept + i, n - i, group);
    }
    EACH_VECTOR(v) sum[v] = sum[v] - K(set)(ANCHOR);
    K(add_lanes)(&total, sum);
    K(add_lanes)(&total, lost);
    state[FIELD(SUM)] = K(total)(&total);
}

static void K(softmax_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                             double *state)
{
    const elem *x = K(row_in)(call, 0, row) + low;
    real *kept = K(kept_in_output)(call, row);
    if (call->n <= FEW)
        K(softmax_sum_short)(call, x, state, kept);
    else if (kept)
        K(softmax_sum)(call, x, high - low, state, kept + low, NULL, K(NO_ROW));
    else
        K(softmax_sum)(call, x, high - low, state, NULL, NULL, K(NO_ROW));
}

/* Classes [low, high) of a row; next_peak goes on in `along`. */
static KLCE_NOINLINE void K(softmax_sweep_along)(const klce_call *call, ptrdiff_t row,
                                                 ptrdiff_t low, ptrdiff_t high, double *state,
                                                 real *kept, K(softmax_along) *along)
{
    const elem *x = K(row_in)(call, 0, row) + low;
    K(softmax_along) own = *along;
    kept += low;
    own.next += low;
    if (own.behind.way != K(NO_ROW)) {
        own.behind.kept += low;
        own.behind.y += low;
        own.behind.left -= low;
    }
    if (own.behind.way == K(NO_ROW))
        K(softmax_sum)(call, x, high - low, state, kept, &own, K(NO_ROW));
    else if (own.behind.way == K(TO_CACHE))
        K(softmax_sum)(call, x, high - low, state, kept, &own, K(TO_CACHE));
    else
        K(softmax_sum)(call, x, high - low, state, kept, &own, K(PAST_CACHES));
    along->next_peak = own.next_peak;
}

/* A row that is summed, to be stored along with the next one. */
KLCE_INLINE K(kept_row) K(softmax_row)(const klce_call *call, ptrdiff_t row, const real *kept,
                                       const K(row_factors) *factors)
{
    elem *y = K(row_out)(call, 2, row);
    ptrdiff_t before;
    K(row_way) way = K(row_way_of)(call, y, &before);
    K(kept_row) own = {way, kept, y, before};
    if (before)
        K(put_kept)(&own, factors, 0, before, way);
    own.kept += before;
    own.y += before;
    own.left = call->n - before;
    return own;
}

/* Rows whose exponentials can be kept. */
static ptrdiff_t K(softmax_pipelined)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    double state[KLCE_FIELDS * KLCE_TILE] = {0}, part[KLCE_FIELDS * KLCE_TILE];
    size_t bytes = (size_t)call->n * sizeof(real);
    char *memory = bytes <= KLCE_KEPT_BYTES ? malloc(bytes + 64) : NULL;
    if (!memory)
        return low;
    K(row_factors) factors = {0};
    real *kept = (real *)(memory + (-(uintptr_t)memory & 63));
    K(softmax_along) along = {
        .behind = {.way = K(NO_ROW)}, .factors = &factors, .next_peak = K(no_peak)()};
    for (ptrdiff_t row = low; row < high; row++) {
        const elem *x = K(row_in)(call, 0, row);
        ptrdiff_t end = KLCE_LESSER(call->n, KLCE_SEGMENT);
        state[FIELD(MAX)] =
            row == low ? K(max_of)(x, call->n) : K(largest)(&along.next_peak, x, call->n);
        K(softmax_refer)(call, row, 1, state);
        along.next = row + 1 < high ? K(row_in)(call, 0, row + 1) : x;
        along.next_peak = K(no_peak)();
        K(softmax_sweep_along)(call, row, 0, end, state, kept, &along);
        while (end < call->n) {
            ptrdiff_t start = end;
            end = KLCE_LESSER(call->n, start + KLCE_SEGMENT);
            part[FIELD(ORIGIN)] = state[FIELD(ORIGIN)];
            part[FIELD(REF)] = state[FIELD(REF)];
            K(softmax_sweep_along)(call, row, start, end, part, kept, &along);
            K(softmax_merge)(call, state, part);
        }
        K(softmax_finish)(call, row, 1, state);
        factors = K(row_factors_of)(state);
        along.behind = K(softmax_row)(call, row, kept, &factors);
    }
    K(kept_row) last = along.behind;
    K(put_kept_from)(0, last.way, last.kept, last.y, last.left, &factors);
    streams_done();
    free(memory);
    return high;
}

/* WIDTH rows side by side, whose maxima are known: what their exponentials are measured from, and
 * the sums of those, lane j % LANES of a long row being a vector. */
typedef struct {
    K(v) max;
    K(references) r;
    K(v) sum[LANES], lost[LANES];
} K(softmax_columns);

KLCE_INLINE void K(softmax_open_columns)(const K(expsum_context) *c, K(softmax_columns) *s,
                                         K(v) max)
{
    s->max = max;
    s->r = K(references_of)(c, max, LIFT, LOWEST);
}

/* Columns of rows side by side, of classes [j, j + count), become their exponentials. */
KLCE_INLINE void K(softmax_add_columns)(const K(expsum_context) *c, K(softmax_columns) *s, K(v) *e,
                                        ptrdiff_t j, int count)
{
    K(exp_pair) pair[KLCE_BESIDE];
    K(exps_lifted)(c, &s->r.from, e, pair, count);
    KLCE_UNROLL for (int k = 0; k < count; k++)
    {
        ptrdiff_t l = (j + k) % LANES;
        e[k] = K(joined)(pair[k]);
        if (j < LANES) {
            s->sum[l] = K(set)(ANCHOR);
            s->lost[l] = K(set)(0);
        }
        K(add_exp)(pair[k], e[k], &s->sum[l], &s->lost[l]);
    }
}

KLCE_INLINE void K(softmax_close_columns)(K(softmax_columns) *s, ptrdiff_t n, double *state)
{
    for (ptrdiff_t l = 0; l < KLCE_LESSER(n, LANES); l++)
        s->sum[l] = s->sum[l] - K(set)(ANCHOR);
    K(store_references)(s->max, &s->r, state);
    K(sum_column_pairs)(s->sum, s->lost, n, state + FIELD(SUM));
}

/* The block at hand: its exponentials, and their sums. */
KLCE_INLINE void K(softmax_sum_block)(const K(expsum_context) *c, K(blocks) *b,
                                      K(abreast_states) *states)
{
    const ptrdiff_t n = b->call->n;
    K(softmax_columns) s[K(ABREAST_VECTORS)];
    for (int w = 0; w < K(ABREAST_VECTORS); w++)
        K(softmax_open_columns)(c, &s[w], b->max[w]);
    ptrdiff_t j = 0, moved = 0;
    for (; j + KLCE_PANEL_CLASSES <= n; j += KLCE_PANEL_CLASSES)
        for (int w = 0; w < K(ABREAST_VECTORS); w++) {
            K(v) *e = K(columns_at)(b->now, j, w);
            if (moved < j)
                K(move_class)(b, moved++, 0);
            KLCE_UNROLL for (int k = 0; k < KLCE_PANEL_CLASSES; k += KLCE_BESIDE)
                K(softmax_add_columns)(c, &s[w], e + k, j + k, KLCE_BESIDE);
        }
    for (; j < n; j++)
        for (int w = 0; w < K(ABREAST_VECTORS); w++)
            K(softmax_add_columns)(c, &s[w], K(columns_at)(b->now, j, w), j, 1);
    for (int w = 0; w < K(ABREAST_VECTORS); w++)
        K(softmax_close_columns)(&s[w], n, K(state_of_vector)(states, w));
    while (moved < n)
        K(move_class)(b, moved++, 0);
}

KLCE_INLINE void K(softmax_divide_block)(K(blocks) *b, K(abreast_states) *states)
{
    K(row_factors) factors[K(ABREAST_VECTORS)];
    for (int w = 0; w < K(ABREAST_VECTORS); w++)
        factors[w] = K(column_factors_of)(K(state_of_vector)(states, w));
    OVER_PANEL(b, K(divide_columns), factors);
}

static ptrdiff_t K(softmax_abreast)(const klce_call *call, ptrdiff_t low, ptrdiff_t high,
                                    void *scratch)
{
    /* A copy, see softmax_sum. */
    const K(expsum_context) context = *K(context)(call);
    K(abreast_states) states;
    K(blocks) b;
    K(first_block)(&b, call, 2, low, high, scratch, 0);
    do {
        K(softmax_sum_block)(&context, &b, &states);
        K(finish_block)(&b, &states, K(softmax_finish));
        K(softmax_divide_block)(&b, &states);
    } while (K(next_block)(&b));
    return b.at;
}

static const klce_kernel K(softmax_kernel) = {
    .prepare = K(temperature_prepare),
    .pass = {{K(softmax_max), SHARED(softmax_merge_max), SHARED(softmax_refer)},
             {K(softmax_sweep), SHARED(softmax_merge), SHARED(softmax_finish)},
             {K(softmax_emit), NULL, NULL}},
    .few = TILE_OF(softmax_few),
    .few_pipelined = SOFTMAX_FEW_PIPELINED,
    .pipelined = K(softmax_pipelined),
    .abreast = K(softmax_abreast),
    .most_abreast = 4 * BLOCK, /* a panel is 2 MB then */
    .panels = 2,
};

#undef LIFT
#undef LOWEST
#undef UNLIFT
#undef ANCHOR
#undef FEW_ANCHOR
#undef LIFTED_SMALL
#undef LIFTED_NORMAL
#undef NEGLIGIBLE
#undef EXPONENT_SHIFT
#undef SOFTMAX_FEW_PIPELINED
