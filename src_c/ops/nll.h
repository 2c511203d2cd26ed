/* nll: minus the log-probability at the label. */

/* The labels of a whole tile, unless one is out of range, which 3 instructions a vector tell. */
KLCE_INLINE int K(read_inside)(const klce_call *call, ptrdiff_t row, int64_t *label)
{
    uint64_t outside = 0, last = (uint64_t)call->n - 1;
    memcpy(label, call->arg[1] + row * call->step[1], KLCE_TILE * sizeof *label);
    for (int i = 0; i < KLCE_TILE; i++)
        outside |= (uint64_t)label[i] | (last - (uint64_t)label[i]);
    return !(outside >> 63);
}

/* Bytes from row to row up to which the processor itself sees what comes next. */
#define NEAR_ROWS 64

static void K(nll_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(labels) labels = {.value = {0}};
    int64_t label[KLCE_TILE], ignored = *(const int64_t *)call->arg[2];
    ptrdiff_t step = call->step[0];
    /* Where no label in range is ignored or masked, most tiles need no more than the values. */
    int plain = !call->mask && call->core[0] == sizeof(elem) && call->step[1] == sizeof *label &&
                call->step[3] == sizeof(real) && (ignored < 0 || ignored >= call->n);
    int apart = step > NEAR_ROWS || step < -NEAR_ROWS;
    for (ptrdiff_t row = low; row < high; row += KLCE_TILE) {
        ptrdiff_t count = KLCE_LESSER(KLCE_TILE, high - row);
        if (apart)
            K(prefetch_at_labels)(call, row + KLCE_TILE, high);
        if (plain && count == KLCE_TILE && K(read_inside)(call, row, label)) {
            const char *x = call->arg[0] + row * step;
            real *y = K(result)(call, 3, row);
            KLCE_UNROLL for (int i = 0; i < KLCE_TILE; i++) y[i] =
                -K(value)(((const elem *)(x + i * step))[label[i]]);
            continue;
        }
        K(read_at_labels)(call, row, count, &labels);
        EACH_STATE(i, count)
        {
            m_f64 is_ignored = eq_f64(load_f64(labels.counted + i), set_f64(0));
            v_f64 loss = -load_f64(labels.value + i);
            store_f64(labels.value + i, select_f64(is_ignored, set_f64(0), loss));
        }
        K(put)(call, 3, row, count, labels.value);
    }
}

#undef NEAR_ROWS

static const klce_kernel K(nll_kernel) = {.rows = K(nll_rows)};
