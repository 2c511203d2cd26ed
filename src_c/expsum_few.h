/* The sums of exponentials of rows of few classes, side by side: to the bits of expsum.h. */

/* Of rows of few classes, how far x is from another row y: (x - y) - centre, right to the last
 * place (Knuth's two-sum), and infinite where y is -inf and x is not.  10 instructions. */
KLCE_INLINE K(v) K(apart_of)(K(v) x, K(v) y, K(v) centre)
{
    K(v) s = x - y, t = s - x, least = K(set)(LEAST_APART);
    K(v) error = K(max)((x - (s - t)) - (y + t), least); /* nan of infinite ones is passed over */
    return K(max)((s - centre) + error, least);
}

/* The centre, the distance of the maxima: about it, distances are hardly larger than log(q/p).  0
 * where a maximum is infinite. */
KLCE_INLINE K(v) K(centre_apart)(K(v) x_max, K(v) y_max)
{
    K(v) centre = x_max - y_max;
    K(m) finite = K(lt)(K(max)(centre, -centre), K(set)((real)INFINITY));
    return K(select)(finite, centre, K(set)(0));
}

/* Whether some class of WIDTH rows is farther than `near` from the centre; also where the centre is
 * so large that rounding x - y may exceed a sixteenth of that.  Where none is, no row's sums of
 * distances have the digits (kl_logits.h), so they are not taken; nor for fewer classes than
 * APART_CLASSES, where as a rule some row of a tile lacks digits and needs the second sweep. */
#define APART_NEAR 0.3
enum { K(APART_CLASSES) = 4 };
KLCE_INLINE int K(are_apart)(const K(v) *x, const K(v) *y, ptrdiff_t n, K(v) centre, real near)
{
    real unit = KLCE_REAL_IS_F64 ? (real)0x1p-49 : (real)0x1p-20;
    if (K(any)(K(lt)(K(set)(near), K(max)(centre, -centre) * K(set)(unit))))
        return 1;
    for (ptrdiff_t j = 0; j < n; j++) {
        K(v) apart = (x[j] - y[j]) - centre;
        if (K(any)(K(lt)(K(set)(near), K(max)(apart, -apart))))
            return 1;
    }
    return 0;
}

/* APART, SIZES and CENTRE of a row whose other sums stand in its state: by a sweep of its own,
 * for the rows that no tile takes. */
static KLCE_NOINLINE void K(sum_apart)(const K(expsum_context) *c, const elem *x, const elem *y,
                                       double y_max, ptrdiff_t n, double *state)
{
    K(measure) from =
        K(measure_from)(c, (real)state[FIELD(ORIGIN)], (real)state[FIELD(REF)], BOOST, FLOOR);
    K(v) centre = K(centre_apart)(K(set)((real)state[FIELD(MAX)]), K(set)((real)y_max));
    K(v) x_group[VECTORS], y_group[VECTORS], sum[EXP_LANES / WIDTH], sizes[EXP_LANES / WIDTH];
    K(quad_sums) sum_quads = {0}, sizes_quads = {0};
    for (ptrdiff_t j = 0, end; j < n; j = end) {
        end = KLCE_LESSER(j + EXP_FLUSH, n);
        for (int v = 0; v < EXP_LANES / WIDTH; v++)
            sum[v] = sizes[v] = K(set)(0);
        for (; j < end; j += LANES) {
            K(load_group)(x + j, end - j, (real)NAN, x_group);
            K(load_group)(y + j, end - j, 0, y_group);
            EACH_VECTOR(v)
            {
                int into = v % (EXP_LANES / WIDTH);
                K(m) is_class = K(eq)(x_group[v], x_group[v]); /* a nan has no sums anyway */
                K(v) z = K(max)(from.floor, x_group[v] - from.origin);
                K(v) e = K(select)(is_class, K(exp_by_tail)(c, &from, z), K(set)(0));
                K(v) apart = K(apart_of)(x_group[v], y_group[v], centre);
                sum[into] = K(fma)(e, apart, sum[into]);
                sizes[into] = K(fma)(e, K(max)(apart, -apart), sizes[into]);
            }
        }
        K(add_quads)(&sum_quads, sum, NULL, EXP_LANES);
        K(add_quads)(&sizes_quads, sizes, NULL, EXP_LANES);
    }
    state[FIELD(APART)] = K(total_of_quads)(&sum_quads);
    state[FIELD(SIZES)] = K(total_of_quads)(&sizes_quads);
    state[FIELD(CENTRE)] = (double)K(first_lane)(centre);
}

/* What a sweep over columns goes by. */
typedef struct {
    const K(v) *y; /* the columns of other rows */
    K(references) r;
    K(v) max, top, own;   /* the maxima, their distance to the origin, and their exponentials */
    K(v) sought;          /* the maxima whose first place is still to come, else nan */
    K(v) label, at_label; /* the rows' labels, and the values there, as far as they came */
    K(v) centre;          /* see apart_of */
} K(few_sweep);

/* What is asked for beside the sum, and whether the maxima are among the columns; how many lanes
 * the sums have, and after how many classes they are taken out. */
typedef struct {
    int moments, labels, apart, maxima, lanes, flush;
} K(few_asked);

/* Its sums: a lane is a vector here. */
typedef struct {
    K(v) sum[LANES], tail[LANES], weighted[LANES], apart[LANES], sizes[LANES];
} K(few_sums);

/* Adds `count` columns, those of class j and on, side by side (vmath.h). */
KLCE_INLINE void K(add_exp_columns)(const K(expsum_context) *c, K(few_sweep) *s, K(few_asked) asked,
                                    const K(v) *column, ptrdiff_t j, int count, K(few_sums) *into)
{
    K(v) z[KLCE_BESIDE], t[KLCE_BESIDE], scale[KLCE_BESIDE];
    K(m) is_first[KLCE_BESIDE];
    KLCE_UNROLL for (int k = 0; k < count; k++)
    {
        K(v) x = column[k];
        z[k] = K(max)(s->r.from.floor, x - s->r.origin);
        if (asked.maxima) { /* in their place is what stands for -inf, as in expsum */
            is_first[k] = K(eq)(x, s->sought);
            s->sought = K(select)(is_first[k], K(set)((real)NAN), s->sought);
            z[k] = K(select)(is_first[k], s->r.from.floor, z[k]);
        }
        if (asked.labels)
            s->at_label = K(select)(K(eq)(s->label, K(set)((real)(j + k))), x, s->at_label);
    }
    K(exp_tails)(&c->e, z, s->r.from.magic, t, scale, count);
    int group = j % asked.flush >= asked.lanes;
    KLCE_UNROLL for (int k = 0; k < count; k++)
    {
        ptrdiff_t l = (j + k) % asked.lanes;
        K(v) far = s->top - z[k], e = K(fma)(t[k], scale[k], scale[k]);
        into->sum[l] = group ? into->sum[l] + scale[k] : scale[k];
        into->tail[l] = group ? K(fma)(t[k], scale[k], into->tail[l]) : t[k] * scale[k];
        if (asked.moments)
            into->weighted[l] = group ? K(fma)(e, far, into->weighted[l]) : e * far;
        if (asked.apart) {
            K(v) d = K(apart_of)(column[k], s->y[j + k], s->centre), size = K(max)(d, -d);
            K(v) whole = K(select)(is_first[k], s->own, e);
            into->apart[l] = group ? K(fma)(whole, d, into->apart[l]) : whole * d;
            into->sizes[l] = group ? K(fma)(whole, size, into->sizes[l]) : whole * size;
        }
    }
}

/* The sweep of rows of these maxima, for their sums alone. */
KLCE_INLINE K(few_sweep) K(few_sweep_of)(const K(expsum_context) *c, K(v) max)
{
    K(few_sweep) s = {.max = max, .sought = max};
    s.r = K(references_of)(c, max, BOOST, FLOOR);
    s.top = max - s.r.origin;
    return s;
}

/* A tile of rows of few classes, which it loads: what expsum leaves in their states, to the bit;
 * unless labels are NULL, the values at them; and unless y is, what sum_apart leaves, y being the
 * tile of other rows and y_max their maxima: APART is nan where all of WIDTH rows are near. */
KLCE_INLINE void K(expsum_few)(const klce_call *call, int operand, ptrdiff_t row, K(tile) *tile,
                               double *state, int moments, K(labels) *labels, const K(tile) *y_tile,
                               const double *y_max)
{
    const K(expsum_context) *c = K(context)(call);
    ptrdiff_t n = call->n;
    K(few_sums) sums;
    K(v) zero = K(set)(0);
    K(load_tile)(call, operand, row, tile);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        const K(v) *x = tile->column[i / WIDTH];
        K(few_sweep) s = K(few_sweep_of)(c, K(max_of_columns)(x, n, K(set)((real)-INFINITY)));
        s.y = y_tile ? y_tile->column[i / WIDTH] : NULL;
        s.own = K(exp_by_tail)(c, &s.r.from, s.top);
        s.label = labels ? K(load_field)(labels->label + i) : zero;
        s.at_label = K(set)((real)NAN);
        s.centre = y_tile ? K(centre_apart)(s.max, K(load_field)(y_max + i)) : zero;
        const real near = (real)(APART_NEAR * c->t);
        K(few_asked) asked = {.moments = moments,
                              .labels = labels != NULL,
                              .maxima = 1,
                              .lanes = EXP_LANES,
                              .flush = EXP_FLUSH};
        if (y_tile && n >= K(APART_CLASSES))
            asked.apart = K(are_apart)(x, s.y, n, s.centre, near);
        K(four_sums) rest = {0}, weighted = {0}, apart = {0}, sizes = {0};
        for (ptrdiff_t j = 0, end; j < n; j = end) {
            end = KLCE_LESSER(j + EXP_FLUSH, n);
            const ptrdiff_t lanes = KLCE_LESSER(EXP_LANES, end - j);
            for (; j + KLCE_BESIDE <= end; j += KLCE_BESIDE)
                K(add_exp_columns)(c, &s, asked, x + j, j, KLCE_BESIDE, &sums);
            for (; j < end; j++)
                K(add_exp_columns)(c, &s, asked, x + j, j, 1, &sums);
            K(add_columns)(&rest, sums.sum, sums.tail, lanes);
            if (moments)
                K(add_columns)(&weighted, sums.weighted, NULL, lanes);
            if (asked.apart) {
                K(add_columns)(&apart, sums.apart, NULL, lanes);
                K(add_columns)(&sizes, sums.sizes, NULL, lanes);
            }
        }
        K(store_references)(s.max, &s.r, state + i);
        K(total_of_four)(&rest, state + FIELD(REST) + i);
        if (labels)
            K(store_field)(labels->value + i, s.at_label);
        if (moments)
            K(total_of_four)(&weighted, state + FIELD(WEIGHTED) + i);
        if (asked.apart) {
            K(total_of_four)(&apart, state + FIELD(APART) + i);
            K(total_of_four)(&sizes, state + FIELD(SIZES) + i);
        } else if (y_tile) {
            K(store_field)(state + FIELD(APART) + i, K(set)((real)NAN));
        }
        if (y_tile)
            K(store_field)(state + FIELD(CENTRE) + i, s.centre);
        if (K(any)(K(eq)(K(max)(s.max, -s.max), K(set)((real)INFINITY)))) {
            K(v) nan = zero; /* where a row holds one */
            real found[WIDTH];
            for (ptrdiff_t j = 0; j < n; j++)
                nan = K(select)(K(eq)(x[j], x[j]), nan, x[j]);
            V(store)(found, nan);
            for (int k = i; k < i + WIDTH; k++)
                if (!(fabs(state[FIELD(MAX) + k]) < INFINITY))
                    K(leave_infinite)(isnan(found[k - i]), moments, state + k);
        }
    }
}

/* SQUARES of a tile, whose other sums stand in its states: what sum_squares finds, to the bit. */
static KLCE_NOINLINE void K(sum_squares_few)(const K(expsum_context) *c, const K(tile) *tile,
                                             ptrdiff_t n, double *state)
{
    K(v) sum[LANES];
    double mean[KLCE_TILE];
    for (int i = 0; i < KLCE_TILE; i++)
        mean[i] = state[FIELD(WEIGHTED) + i] / K(mass_at_reference)(c, state + i);
    for (int i = 0; i < KLCE_TILE; i += WIDTH) {
        const K(v) *x = tile->column[i / WIDTH];
        K(v) max = K(load_field)(state + FIELD(MAX) + i);
        K(v) origin = K(load_field)(state + FIELD(ORIGIN) + i);
        K(v) ref = K(load_field)(state + FIELD(REF) + i), about = K(load_field)(mean + i);
        K(measure) from = K(measure_of)(c, origin, ref, BOOST + 2 * SQUARE_BITS, FLOOR);
        EACH_GROUP(group, n) EACH_LANE(l, group, n)
        {
            K(v) z = K(max)(from.floor, x[group + l] - origin);
            K(v) apart = ((max - origin) - z) - about, e = K(exp_measured)(c, &from, z);
            sum[l] = K(fma)(e * apart, apart, group ? sum[l] : K(set)(0));
        }
        K(sum_columns)(sum, n, state + FIELD(SQUARES) + i);
    }
    for (int i = 0; i < KLCE_TILE; i++)
        state[FIELD(SQUARES) + i] = fabs(state[FIELD(MAX) + i]) < INFINITY
                                        ? ldexp(state[FIELD(SQUARES) + i], -2 * SQUARE_BITS)
                                        : 0;
}

static KLCE_NOINLINE void K(sum_exp_few)(const klce_call *call, int operand, ptrdiff_t row,
                                         K(tile) *tile, double *state)
{
    K(expsum_few)(call, operand, row, tile, state, 0, NULL, NULL, NULL);
}

static KLCE_NOINLINE void K(sum_exp_and_weighted_few)(const klce_call *call, int operand,
                                                      ptrdiff_t row, K(tile) *tile, double *state)
{
    K(expsum_few)(call, operand, row, tile, state, 1, NULL, NULL, NULL);
}

/* Of operand 0, with its distances to the rows of a tile of maxima y_max. */
static KLCE_NOINLINE void K(sum_exp_and_apart_few)(const klce_call *call, ptrdiff_t row,
                                                   K(tile) *tile, const K(tile) *y,
                                                   const double *y_max, double *state)
{
    K(expsum_few)(call, 0, row, tile, state, 0, NULL, y, y_max);
}

/* Of operand 0, with the values at its labels. */
static KLCE_NOINLINE void K(sum_exp_at_labels_few)(const klce_call *call, ptrdiff_t row,
                                                   K(tile) *tile, double *state, K(labels) *labels)
{
    K(expsum_few)(call, 0, row, tile, state, 0, labels, NULL, NULL);
}

#undef APART_NEAR
