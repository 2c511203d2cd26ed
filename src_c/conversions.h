/* Many elements as `real` and back, and `real` as doubles. */

/* As many values as a vector of doubles takes. */
KLCE_INLINE v_f64 K(load_doubles)(const real *values)
{
#if KLCE_REAL_IS_F64
    return load_f64(values);
#else
    return widen_at(values);
#endif
}

/* Pieces of n elements, `step` bytes apart, as `real` one after another, and those rounded back:
 * for widen.c. */
static void K(widen)(const char *elems, ptrdiff_t step, void *reals, ptrdiff_t pieces, ptrdiff_t n)
{
    real *to = reals;
    for (; pieces; pieces--, elems += step, to += n) {
        const elem *from = (const elem *)elems;
        ptrdiff_t i = 0;
        for (; i + WIDTH <= n; i += WIDTH)
            V(store)(to + i, K(load)(from + i));
        if (i < n)
            V(store_part)(to + i, (int)(n - i), K(load_part)(from + i, (int)(n - i), K(set)(0)));
    }
}

static void K(narrow)(const void *reals, char *elems, ptrdiff_t step, ptrdiff_t pieces, ptrdiff_t n)
{
    const real *from = reals;
    for (; pieces; pieces--, elems += step, from += n) {
        elem *to = (elem *)elems;
        ptrdiff_t i = 0;
        for (; i + WIDTH <= n; i += WIDTH)
            K(store)(to + i, V(load)(from + i));
        if (i < n)
            K(store_part)(to + i, (int)(n - i), V(load_part)(from + i, (int)(n - i), K(set)(0)));
    }
}
