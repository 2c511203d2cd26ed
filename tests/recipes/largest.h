/* largest: the largest of a row; nan if it holds one, -inf if it holds nothing. */

enum { K(LARGEST) };

static void K(largest_sweep)(const klce_call *call, ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                             double *state)
{
    const elem *x = K(row_in)(call, 0, row);
    double largest = -INFINITY;
    for (ptrdiff_t i = low; i < high && largest == largest; i++)
        if (!(K(value)(x[i]) <= largest))
            largest = K(value)(x[i]);
    state[FIELD(LARGEST)] = largest;
}

static void K(largest_merge)(const klce_call *call, double *into, const double *from)
{
    (void)call;
    if (*into == *into && !(*from <= *into))
        *into = *from;
}

static void K(largest_finish)(const klce_call *call, ptrdiff_t row, ptrdiff_t count, double *state)
{
    K(put)(call, 1, row, count, state);
}

static const klce_kernel K(largest_kernel) = {
    .pass = {{K(largest_sweep), K(largest_merge), K(largest_finish)}},
};
