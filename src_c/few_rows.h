/* Rows of few classes that fill groups of their own, as they lie: without a step from rows to
 * columns and back.  What is left of a maximum or a sum across lanes is found of WIDTH rows
 * together. */

/* Whether rows of operand k do, and whole groups.  Of others, the last group's empty lanes cost
 * more than columns do. */
KLCE_INLINE int K(fill_groups)(const klce_call *call, int k)
{
    return call->n && call->n % LANES == 0 && call->n <= FEW && !K(in_columns)(call, k);
}

/* The largest of a row in each lane; nan is passed over. */
KLCE_INLINE K(v) K(max_in_row)(const elem *x, ptrdiff_t n)
{
    K(v) most = K(set)((real)-INFINITY);
    for (ptrdiff_t j = 0; j < n; j += LANES)
        EACH_VECTOR(v) most = K(max)(K(load)(x + j + v * WIDTH), most);
    return most;
}

/* In lane i, the largest of vector i, or the sum of its lanes by halves: 3 instructions a
 * vector. */
KLCE_INLINE K(v) K(max_across)(K(v) *row)
{
    KLCE_UNROLL for (int half = WIDTH / 2; half; half /= 2)
        KLCE_UNROLL for (int i = 0; i < half; i++) row[i] =
            K(max)(K(low_pairs)(row[i], row[i + half]), K(high_pairs)(row[i], row[i + half]));
    return row[0];
}

KLCE_INLINE K(v) K(sum_across)(K(v) *row)
{
    KLCE_UNROLL for (int half = WIDTH / 2; half; half /= 2)
        KLCE_UNROLL for (int i = 0; i < half; i++) row[i] =
            K(low_pairs)(row[i], row[i + half]) + K(high_pairs)(row[i], row[i + half]);
    return row[0];
}
