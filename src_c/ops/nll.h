/* nll: minus the log-probability at the label. */

/* Rows whose labels are looked at together. */
#define ROWS 64

/* Rows from one to that whose value is asked for meanwhile, where they are apart. */
#define AHEAD 32

/* Copies the labels of ROWS rows, as they may change meanwhile, and tells whether none is out of
 * range: by the sign bits of label and last - label, 4 instructions a vector. */
KLCE_INLINE int K(read_inside)(const klce_call *call, ptrdiff_t row, int64_t *label)
{
    const char *labels = call->arg[1] + row * (ptrdiff_t)sizeof *label;
    double raw[ROWS]; /* int64 */
    b_f64 outside = set_bits_f64(0), last = set_bits_f64(call->n - 1);
    memcpy(raw, labels, sizeof raw);
    memcpy(label, raw, sizeof raw);
    for (int i = 0; i < ROWS; i += KLCE_WIDTH_f64) {
        b_f64 own = to_bits_f64(load_f64(raw + i));
        outside = outside | own | (last - own);
    }
    /* 1 or, where there is a sign, -1. */
    b_f64 sign = set_bits_f64(INT64_MIN), one = to_bits_f64(set_f64(1));
    return !any_f64(lt_f64(from_bits_f64((outside & sign) | one), set_f64(0)));
}

/* The values at labels that are inside, asking for those of rows that follow if they are apart.
 * 5 instructions a row; 8 if it asks.  Labels ahead may be out of range yet: their addresses are
 * counted as integers, and not touched. */
KLCE_INLINE void K(negated_at)(const klce_call *call, ptrdiff_t row, const int64_t *label, int asks)
{
    const ptrdiff_t step = call->step[0];
    const char *x = call->arg[0] + row * step;
    const int64_t *later = (const int64_t *)call->arg[1] + row + AHEAD;
    real *y = K(result)(call, 3, row);
    for (int i = 0; i < ROWS; i += 4, x += 4 * step)
        KLCE_UNROLL for (int k = 0; k < 4; k++)
        {
            if (asks)
                KLCE_PREFETCH((void *)((uintptr_t)x + (uintptr_t)((k + AHEAD) * step) +
                                       (uintptr_t)later[i + k] * sizeof(elem)));
            y[i + k] = -K(value)(((const elem *)(x + k * step))[label[i + k]]);
        }
}

/* Whether rows that are not apart are gathered. */
#define GATHERS (KLCE_QUICK_GATHERS && sizeof(elem) == sizeof(real))

/* The same of such rows: by gathers where those are quick, 12 instructions for 16 of float32. */
KLCE_INLINE void K(negated_near)(const klce_call *call, ptrdiff_t row, const int64_t *label)
{
#if KLCE_VECTOR_BYTES == 64 && KLCE_ELEM_BITS >= 32
    if (GATHERS) {
        static const int64_t rows[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        const ptrdiff_t step = call->step[0];
        const char *x = call->arg[0] + row * step;
        real *y = K(result)(call, 3, row);
        b_f64 start[HALVES], offset[HALVES], own;
        KLCE_UNROLL for (int h = 0; h < HALVES; h++)
        {
            memcpy(&own, rows + h * KLCE_WIDTH_f64, sizeof own);
            start[h] = own * (uint64_t)step;
        }
        for (int i = 0; i < ROWS; i += WIDTH, x += WIDTH * step) {
            KLCE_UNROLL for (int h = 0; h < HALVES; h++)
            {
                memcpy(&own, label + i + h * KLCE_WIDTH_f64, sizeof own);
                offset[h] = start[h] + own * sizeof(elem);
            }
            K(store)(y + i, -K(gather)(x, offset));
        }
        return;
    }
#endif
    K(negated_at)(call, row, label, 0);
}

/* Bytes from row to row up to which the processor itself sees what comes next: loads one by one see
 * less far ahead than gathers.  Beyond, it has to be asked in either case. */
#define NEAR_ROWS (GATHERS ? 512 : 128)

/* Labels that may be ignored, masked or out of range. */
KLCE_INLINE void K(nll_tile)(const klce_call *call, ptrdiff_t row, ptrdiff_t count)
{
    K(labels) labels = {.value = {0}};
    K(read_at_labels)(call, row, count, &labels);
    EACH_STATE(i, count)
    {
        m_f64 is_ignored = eq_f64(load_f64(labels.counted + i), set_f64(0));
        v_f64 loss = -load_f64(labels.value + i);
        store_f64(labels.value + i, select_f64(is_ignored, set_f64(0), loss));
    }
    K(put)(call, 3, row, count, labels.value);
}

static void K(nll_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    int64_t label[ROWS], ignored = *(const int64_t *)call->arg[2];
    ptrdiff_t row = low, step = call->step[0];
    /* Where no label in range is ignored or masked, most rows need no more than the values. */
    int plain = !call->mask && call->core[0] == sizeof(elem) && call->step[1] == sizeof *label &&
                call->step[3] == sizeof(real) && (ignored < 0 || ignored >= call->n);
    int apart = step > NEAR_ROWS || step < -NEAR_ROWS;
    while (row < high) {
        if (plain && high - row >= ROWS && K(read_inside)(call, row, label)) {
            if (!apart)
                K(negated_near)(call, row, label);
            else if (high - row >= ROWS + AHEAD)
                K(negated_at)(call, row, label, 1);
            else
                K(negated_at)(call, row, label, 0);
            row += ROWS;
            continue;
        }
        for (ptrdiff_t stop = KLCE_LESSER(row + ROWS, high); row < stop; row += KLCE_TILE) {
            if (apart)
                K(prefetch_at_labels)(call, row + KLCE_TILE, high);
            K(nll_tile)(call, row, KLCE_LESSER(KLCE_TILE, stop - row));
        }
        row = KLCE_LESSER(row, high);
    }
}

#undef ROWS
#undef AHEAD
#undef GATHERS
#undef NEAR_ROWS

static const klce_kernel K(nll_kernel) = {.rows = K(nll_rows)};
