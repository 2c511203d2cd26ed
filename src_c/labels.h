/* A row's label, which operand 1 holds, and the value of operand 0 there. */

/* Written once: what is there already costs other threads nothing. */
KLCE_INLINE void K(meet_label)(const klce_call *call, klce_label_kind kind)
{
    if (!(atomic_load_explicit(call->labels_met, memory_order_relaxed) & kind))
        atomic_fetch_or_explicit(call->labels_met, kind, memory_order_relaxed);
}

/* The labels of up to a tile of rows as numbers, -1 for one that is out of range; the values there,
 * nan for such a one; and 1 for each that counts, 0 for each that is ignored. */
typedef struct {
    double label[KLCE_TILE], value[KLCE_TILE], counted[KLCE_TILE];
} K(labels);

/* The labels alone.  No branch hangs on one. */
static KLCE_NOINLINE void K(read_labels)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                         K(labels) *read)
{
    double raw[KLCE_TILE]; /* int64 */
    const char *labels = call->arg[1] + row * call->step[1];
    if (call->step[1] == sizeof *raw && count == KLCE_TILE)
        memcpy(raw, labels, sizeof raw);
    else
        for (int i = 0; i < KLCE_TILE; i++) /* beyond the rows the last one again */
            memcpy(raw + i, labels + KLCE_LESSER(i, count - 1) * call->step[1], sizeof *raw);
    b_f64 ignored = set_bits_f64(*(const int64_t *)call->arg[2]);
    v_f64 zero = set_f64(0), one = set_f64(1), n = set_f64((double)call->n);
    int bad = 0, any_ignored = 0;
    for (int i = 0; i < KLCE_TILE; i += KLCE_WIDTH_f64) {
        b_f64 bits = to_bits_f64(load_f64(raw + i));
        /* An integer from 0 to 2^52 - 1, added to the bits of 2^52, is the mantissa: 2^52 + label.
         * Others change the exponent or the sign, and give what is not inside, or nan. */
        v_f64 label = from_bits_f64(bits + set_bits_f64(0x4330000000000000)) - set_f64(0x1p52);
        m_f64 inside = and_f64(not_f64(lt_f64(label, zero)), lt_f64(label, n));
        m_f64 counts = not_f64(eq_bits_f64(bits, ignored));
        bad |= any_f64(and_f64(counts, not_f64(inside)));
        any_ignored |= any_f64(not_f64(counts));
        store_f64(read->label + i, select_f64(inside, label, -one));
        store_f64(read->counted + i, select_f64(counts, one, zero));
    }
    if (bad)
        K(meet_label)(call, KLCE_BAD_LABEL);
    if (any_ignored)
        K(meet_label)(call, KLCE_IGNORED_LABEL);
}

/* Asks for the value at a row's label, in range or not: an address is not touched by it.  Rows far
 * apart miss the cache one by one, and their misses overlap only as far as they are known. */
KLCE_INLINE void K(prefetch_at_label)(const klce_call *call, ptrdiff_t row)
{
    uint64_t label = *(const uint64_t *)(call->arg[1] + row * call->step[1]);
    KLCE_PREFETCH((void *)((uintptr_t)call->arg[0] + (uint64_t)(row * call->step[0]) +
                           label * (uint64_t)call->core[0]));
}

/* Of a tile ahead, of whatever rows there are up to `end`. */
KLCE_INLINE void K(prefetch_at_labels)(const klce_call *call, ptrdiff_t row, ptrdiff_t end)
{
    ptrdiff_t high = KLCE_LESSER(row + KLCE_TILE, end);
    for (ptrdiff_t i = row; i < high; i++)
        K(prefetch_at_label)(call, i);
}

/* Puts what stands for a masked class where that is the label's. */
KLCE_INLINE void K(mask_labels)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                double *values)
{
    double fill = klce_op_fills[call->op][0] == '0' ? 0 : -INFINITY;
    for (ptrdiff_t i = 0; i < count; i++) {
        const char *mask = call->mask + (row + i) * call->mask_step;
        int64_t label = *(const int64_t *)(call->arg[1] + (row + i) * call->step[1]);
        if ((uint64_t)label < (uint64_t)call->n && !mask[label * call->mask_core])
            values[i] = fill;
    }
}

/* The labels and the values there, which may lie apart or be masked. */
static KLCE_NOINLINE void K(read_at_labels)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                            K(labels) *read)
{
    static const elem none; /* read in the place of a label's element that there is not */
    const char *x = call->arg[0] + row * call->step[0];
    K(read_labels)(call, row, count, read);
    for (ptrdiff_t i = 0; i < count; i++, x += call->step[0]) {
        ptrdiff_t label = (ptrdiff_t)read->label[i];
        real value = K(value)(*(label < 0 ? &none : (const elem *)(x + label * call->core[0])));
        read->value[i] = label < 0 ? (real)NAN : value;
    }
    if (call->mask)
        K(mask_labels)(call, row, count, read->value);
}
