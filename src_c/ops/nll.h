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

static void K(nll_rows)(const klce_call *call, ptrdiff_t low, ptrdiff_t high)
{
    K(labels) labels = {.value = {0}};
    int64_t label[KLCE_TILE], ignored = *(const int64_t *)call->arg[2];
    ptrdiff_t step = call->step[0], core = call->core[0];
    /* Where no label in range is ignored or masked, most tiles need no more than the values. */
    int plain =
        !call->mask && call->step[1] == sizeof *label && (ignored < 0 || ignored >= call->n);
    for (ptrdiff_t row = low; row < high; row += KLCE_TILE) {
        ptrdiff_t count = KLCE_LESSER(KLCE_TILE, high - row);
        K(prefetch_at_labels)(call, row + KLCE_TILE, high);
        if (plain && count == KLCE_TILE && K(read_inside)(call, row, label)) {
            const char *x = call->arg[0] + row * step;
            char *y = call->arg[3] + row * call->step[3];
            for (int i = 0; i < KLCE_TILE; i++, x += step, y += call->step[3])
                *(real *)y = -K(value)(*(const elem *)(x + label[i] * core));
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

static const klce_kernel K(nll_kernel) = {.rows = K(nll_rows)};
