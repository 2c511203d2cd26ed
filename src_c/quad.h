/* Four doubles, in which sums across lanes end on every ISA: a vector, or a plain struct where
 * there is none of that size, or the compiler may know none at all. */
#if KLCE_VECTOR_BYTES >= 32
typedef double quad __attribute__((vector_size(4 * sizeof(double))));
KLCE_INLINE quad quad_of(double a, double b, double c, double d) { return (quad){a, b, c, d}; }
KLCE_INLINE double quad_part(quad q, int k) { return q[k]; }
KLCE_INLINE quad quad_add(quad a, quad b) { return a + b; }
KLCE_INLINE void quad_add_keeping(quad *sum, quad value, quad *lost)
{
    ADD_KEEPING(quad, *sum, value, *lost);
}
#else
typedef struct {
    double part[4];
} quad;
KLCE_INLINE quad quad_of(double a, double b, double c, double d) { return (quad){{a, b, c, d}}; }
KLCE_INLINE double quad_part(quad q, int k) { return q.part[k]; }
KLCE_INLINE quad quad_add(quad a, quad b)
{
    for (int k = 0; k < 4; k++)
        a.part[k] += b.part[k];
    return a;
}
KLCE_INLINE void quad_add_keeping(quad *sum, quad value, quad *lost)
{
    for (int k = 0; k < 4; k++)
        ADD_KEEPING(double, sum->part[k], value.part[k], lost->part[k]);
}
#endif
