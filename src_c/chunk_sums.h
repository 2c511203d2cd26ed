/* Sums of results by fixed chunks, see sum.c. */

/* Writes the sums of `count` chunks of KLCE_SUM_CHUNK values that follow one another.  A chunk has
 * eight chains, which are one vector with AVX-512 and would wait for each addition: four chunks are
 * added up side by side. */
KLCE_INLINE void K(add_chunks)(const real *values, int count, double *sums)
{
    enum { CHAINS = 8, PARTS = CHAINS / KLCE_WIDTH_f64 };
    v_f64 chain[4][PARTS];
    double lane[CHAINS];
    KLCE_UNROLL for (int c = 0; c < count; c++) KLCE_UNROLL for (int h = 0; h < PARTS; h++)
        chain[c][h] = set_f64(0);
    for (ptrdiff_t i = 0; i < KLCE_SUM_CHUNK; i += CHAINS)
        KLCE_UNROLL for (int c = 0; c < count; c++) KLCE_UNROLL for (int h = 0; h < PARTS; h++)
        {
            const real *own = values + c * KLCE_SUM_CHUNK + i + h * KLCE_WIDTH_f64;
            chain[c][h] = chain[c][h] + K(load_doubles)(own);
        }
    KLCE_UNROLL for (int c = 0; c < count; c++)
    {
        KLCE_UNROLL for (int h = 0; h < PARTS; h++)
            store_f64(lane + h * KLCE_WIDTH_f64, chain[c][h]);
        sums[c] = ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
                  ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    }
}

static void K(sum_chunks)(const void *values, ptrdiff_t count, double *sums)
{
    const real *x = values;
    ptrdiff_t c = 0;
#if KLCE_VECTOR_BYTES >= 32 /* elsewhere one fills the registers */
    for (; c + 4 <= count; c += 4)
        K(add_chunks)(x + c * KLCE_SUM_CHUNK, 4, sums + c);
#endif
    for (; c < count; c++)
        K(add_chunks)(x + c * KLCE_SUM_CHUNK, 1, sums + c);
}
