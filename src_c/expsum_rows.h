/* The sums of exponentials of rows of one block, in turn: to the bits of expsum.h.
 *
 * While a row is summed, one after it is looked through for its maximum, so that memory is asked
 * for at an even pace.  What must be known of a row before it is summed is found in steps, and so
 * are its sums closed, each while another row is summed: nothing waits for a chain of instructions,
 * nor for a branch that hangs on a number, of which there is none.
 */

#define SPAN (GROUPS * LANES) /* classes that a sum takes at once, and whose peak is kept */
enum { K(SPANS) = FLUSH / SPAN, K(FLUSHES) = BLOCK / FLUSH };

/* What is known of a row before it is summed, and its sums. */
typedef struct {
    K(peak) of_flush[K(FLUSHES)], of_span[K(FLUSHES) *K(SPANS)];
    K(expsum_run) run;      /* the whole row */
    ptrdiff_t skipped;      /* where the span of the first maximum begins, */
    elem without_max[SPAN]; /* and that span without it */
    K(expsum_parts) parts[K(FLUSHES)];
} K(turn);

/* Of n classes, less than a span. */
static KLCE_NOINLINE K(peak) K(peak_of_rest)(const elem *x, ptrdiff_t n)
{
    K(peak) peak = K(no_peak)();
    elem last[LANES];
    K(v) group[VECTORS];
    for (; n >= LANES; x += LANES, n -= LANES)
        K(raise_peak)(&peak, x);
    if (n) {
        K(load_group)(x, n, (real)-INFINITY, group);
        EACH_VECTOR(v) K(store)(last + v * WIDTH, group[v]);
        K(raise_peak)(&peak, last);
    }
    return peak;
}

/* Keeps the peak of the span that begins at j. */
KLCE_INLINE void K(keep_peak)(K(turn) *row, ptrdiff_t j, K(peak) peak, K(peak) *of_flush)
{
    row->of_span[j / SPAN] = peak;
    K(join_peak)(of_flush, &peak);
}

/* The peaks of n classes, by a look of its own. */
static KLCE_NOINLINE void K(look_at_row)(const elem *x, ptrdiff_t n, K(turn) *row)
{
    for (ptrdiff_t i = 0; i < n; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, n), j = i;
        K(peak) of_flush = K(no_peak)();
        for (; j + SPAN <= end; j += SPAN)
            K(keep_peak)(row, j, K(peak_of)(x + j), &of_flush);
        if (j < end)
            K(keep_peak)(row, j, K(peak_of_rest)(x + j, end - j), &of_flush);
        row->of_flush[i / FLUSH] = of_flush;
    }
}

/* From the peaks: the maximum, and what is measured from it. */
KLCE_INLINE void K(find_maximum)(const K(expsum_context) *c, const elem *x, ptrdiff_t n,
                                 K(turn) *row)
{
    K(peak) peak = row->of_flush[0];
    for (ptrdiff_t i = 1; i * FLUSH < n; i++)
        K(join_peak)(&peak, &row->of_flush[i]);
    real max = K(peak_value)(&peak);
    if (max != max) /* one may have hidden it */
        max = K(max_of)(x, n);
    row->run = (K(expsum_run)){.max = max};
    K(reference_of)(c, max, &row->run.origin, &row->run.ref);
}

/* Copies the span that holds the first maximum, without it; beside y, its distance to that. */
KLCE_INLINE void K(take_out_maximum)(const elem *x, const elem *y, ptrdiff_t n, K(turn) *row)
{
    K(sought) sought = K(sought_of)(row->run.max);
    K(v) group[GROUPS * VECTORS];
    ptrdiff_t flush =
        n <= FLUSH ? 0 : K(first_holding)(row->of_flush, (int)((n - 1) / FLUSH) + 1, &sought);
    ptrdiff_t span = K(first_holding)(row->of_span + flush * K(SPANS), K(SPANS), &sought);
    ptrdiff_t start = flush * FLUSH + span * SPAN;
    KLCE_UNROLL for (ptrdiff_t g = 0, k = start; g < GROUPS; g++, k += LANES)
        K(load_group)(k < n ? x + k : x, k < n ? n - k : 0, (real)-INFINITY, group + g * VECTORS);
    KLCE_UNROLL for (int v = 0; v < GROUPS * VECTORS; v++)
        K(store)(row->without_max + v * WIDTH, group[v]);
    uint64_t hits = K(hits)(group, GROUPS * VECTORS, K(set)(row->run.max));
    if (hits) { /* else a nan hid it, and the row's sums are nan */
        ptrdiff_t first = lowest_bit(hits);
        row->without_max[first] = K(rounded)((real)-INFINITY);
        if (y)
            row->run.apart = (double)row->run.max - (double)K(value)(y[start + first]);
    }
    row->skipped = start;
}

/* Sums x, whose maximum is taken out, with y as expsum.h does, and looks at a row ahead. */
KLCE_INLINE void K(sum_turn)(const K(expsum_context) *c, const elem *x, const elem *y, int has_y,
                             ptrdiff_t n, K(turn) *row, const elem *ahead, K(turn) *coming,
                             int moments)
{
    const K(expsum_run) *run = &row->run;
    const K(measure) from = K(measure_from)(c, run->origin, run->ref, BOOST, FLOOR);
    const K(centre) centre = K(centre_of)(run->max, run->origin, 0);
    const ptrdiff_t skipped = row->skipped;
    K(v) group[GROUPS * VECTORS], y_group[GROUPS * VECTORS], *beside = has_y ? y_group : NULL;
    for (ptrdiff_t i = 0; i < n; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, n), j = i;
        K(expsum_parts) parts = K(no_parts)();
        K(peak) of_flush = K(no_peak)();
        for (; j + SPAN <= end; j += SPAN) {
            const elem *span = j == skipped ? row->without_max : x + j;
            K(keep_peak)(coming, j, K(peak_of)(ahead + j), &of_flush);
            KLCE_UNROLL for (int g = 0; g < GROUPS; g++)
            {
                K(prefetch_group)(ahead + j + g * LANES);
                K(load_group)(span + g * LANES, LANES, 0, group + g * VECTORS);
                if (has_y)
                    K(load_group)(y + j + g * LANES, LANES, 0, y_group + g * VECTORS);
            }
            K(expsum_groups)(c, &from, &centre, group, beside, &parts, GROUPS, LANES, moments,
                             VECTORS);
        }
        if (j < end) {
            const elem *span = j == skipped ? row->without_max : x + j;
            K(keep_peak)(coming, j, K(peak_of_rest)(ahead + j, end - j), &of_flush);
            for (; j < end; j += LANES, span += LANES) {
                K(load_group)(span, end - j, (real)-INFINITY, group);
                if (has_y)
                    K(load_group)(y + j, end - j, 0, y_group);
                K(expsum_groups)(c, &from, &centre, group, beside, &parts, 1, end - j, moments,
                                 VECTORS);
            }
        }
        coming->of_flush[i / FLUSH] = of_flush;
        K(keep_parts)(&row->parts[i / FLUSH], &parts, has_y, moments);
    }
}

/* The state of a row that is summed. */
KLCE_INLINE void K(close_turn)(const K(expsum_context) *c, const elem *x, int has_y, ptrdiff_t n,
                               const K(turn) *row, double *state, int moments)
{
    K(expsum_lanes) lanes;
    K(clear_expsum_lanes)(&lanes, has_y, moments);
    K(add_kept)(&lanes, row->parts, n, has_y, moments);
    K(close_run)(c, &row->run, &lanes, x, has_y, n, state, moments);
    K(settle_infinite)(x, n, has_y, state, moments);
}

/* Rows [low, high), whose states go to `finish`; returns the first that is left.  Of pairs x and y
 * take turns, y's state `other` doubles behind that of x, which may be summed beside y; of single
 * rows `other` is 0. */
KLCE_INLINE ptrdiff_t K(expsum_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high,
                                     ptrdiff_t other, int has_y, int moments, klce_finish finish)
{
    enum { AHEAD = 3, TURNS = 8 }; /* turns ahead to look at, and all at hand, a power of two */
    /* A copy: what is stored might change the call's, for all that the compiler knows. */
    const K(expsum_context) own = *K(context)(call), *c = &own;
    const ptrdiff_t n = call->n, sides = other ? 2 : 1, count = (high - low) * sides;
    double state[KLCE_FIELDS * KLCE_TILE] = {0};
    K(turn) turns[TURNS];
    if (n < 1 || n > BLOCK || count < TURNS)
        return low;
    for (int t = 0; t < TURNS; t++)
        for (ptrdiff_t i = (n + SPAN - 1) / SPAN; i % K(SPANS); i++)
            turns[t].of_span[i] = K(no_peak)();
#define AT(k) KLCE_LESSER(at + (k), count - 1) /* the last one goes on */
#define IS_Y(k) (AT(k) % sides)
#define ROW(k) K(row_in)(call, (int)IS_Y(k), low + AT(k) / sides)
#define Y(k) (has_y && !IS_Y(k) ? K(row_in)(call, 1, low + AT(k) / sides) : NULL)
#define TURN(k) &turns[(size_t)(at + (k)) % TURNS]
    for (ptrdiff_t at = -AHEAD, row = low, i = 0; at <= count; at++) {
        if (at < 0)
            K(look_at_row)(ROW(AHEAD), n, TURN(AHEAD));
        else if (at < count && has_y && !IS_Y(0))
            K(sum_turn)(c, ROW(0), Y(0), 1, n, TURN(0), ROW(AHEAD), TURN(AHEAD), moments);
        else if (at < count)
            K(sum_turn)(c, ROW(0), NULL, 0, n, TURN(0), ROW(AHEAD), TURN(AHEAD), moments);
        if (at > 0) {
            double *own_state = state + i + IS_Y(-1) * other;
            if (has_y && !IS_Y(-1))
                K(close_turn)(c, ROW(-1), 1, n, TURN(-1), own_state, moments);
            else
                K(close_turn)(c, ROW(-1), 0, n, TURN(-1), own_state, moments);
            i += IS_Y(-1) == sides - 1;
            if (i == KLCE_TILE || at == count) {
                finish(call, row, i, state);
                row += i;
                i = 0;
            }
        }
        K(find_maximum)(c, ROW(AHEAD), n, TURN(AHEAD));
        if (at > -AHEAD)
            K(take_out_maximum)(ROW(AHEAD - 1), Y(AHEAD - 1), n, TURN(AHEAD - 1));
    }
#undef AT
#undef IS_Y
#undef ROW
#undef Y
#undef TURN
    return high;
}

static KLCE_NOINLINE ptrdiff_t K(sum_exp_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high,
                                               klce_finish finish)
{
    return K(expsum_rows)(call, low, high, 0, 0, 0, finish);
}

static KLCE_NOINLINE ptrdiff_t K(sum_exp_and_weighted_rows)(const klce_call *call, ptrdiff_t low,
                                                            ptrdiff_t high, klce_finish finish)
{
    return K(expsum_rows)(call, low, high, 0, 0, 1, finish);
}

#undef SPAN
