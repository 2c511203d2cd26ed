/* Statistics that are asked for one by one (statistics.def): which are, and where they go. */

/* The bits of an op's operand `want`. */
KLCE_INLINE int64_t K(wanted)(const klce_call *call, int k)
{
    return *(const int64_t *)call->arg[k];
}

#define WANTS(want, statistic) ((want) >> KLCE_##statistic & 1)

/* Rounded; 0 for what would be a negative 0, since a log-probability that rounds to 0 has no sign,
 * nor has nan. */
KLCE_INLINE real K(number)(double value) { return value == value ? (real)value + 0 : (real)NAN; }

/* Writes a statistic of a tile of rows: value j of each row's operand k. */
KLCE_INLINE void K(put_numbers)(const klce_call *call, int k, ptrdiff_t j, ptrdiff_t row,
                                ptrdiff_t count, const double *values)
{
    char *to = call->arg[k] + row * call->step[k] + j * call->core[k];
    for (ptrdiff_t i = 0; i < count; i++, to += call->step[k])
        *(real *)to = K(number)(values[i]);
}

KLCE_INLINE void K(put_integers)(const klce_call *call, int k, ptrdiff_t j, ptrdiff_t row,
                                 ptrdiff_t count, const double *values)
{
    char *to = call->arg[k] + row * call->step[k] + j * call->core[k];
    for (ptrdiff_t i = 0; i < count; i++, to += call->step[k])
        *(int64_t *)to = (int64_t)values[i];
}

/* Writes the statistics that are wanted of a tile: numbers to operand k, integers to the next, and
 * of either no more than there is room for. */
KLCE_INLINE void K(put_statistics)(const klce_call *call, int k, ptrdiff_t row, ptrdiff_t count,
                                   int64_t want, const klce_statistic *told, int known,
                                   double (*values)[KLCE_TILE])
{
    ptrdiff_t numbers = 0, integers = 0;
    for (int bit = 0; bit < known; bit++) {
        const int is_number = told[bit].letter == 'S';
        if (!(want >> bit & 1))
            continue;
        if (is_number && numbers < call->extent[k])
            K(put_numbers)(call, k, numbers++, row, count, values[bit]);
        else if (!is_number && integers < call->extent[k + 1])
            K(put_integers)(call, k + 1, integers++, row, count, values[bit]);
    }
}

/* Value j of a row's operand k, which has a number of them of its own. */
KLCE_INLINE real *K(number_at)(const klce_call *call, int k, ptrdiff_t row, ptrdiff_t j)
{
    return (real *)(call->arg[k] + row * call->step[k] + j * call->core[k]);
}

KLCE_INLINE int64_t *K(integer_at)(const klce_call *call, int k, ptrdiff_t row, ptrdiff_t j)
{
    return (int64_t *)(call->arg[k] + row * call->step[k] + j * call->core[k]);
}
