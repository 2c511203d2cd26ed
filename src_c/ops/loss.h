/* What the losses of many options share.  A row's loss is its weight times
 *
 *     sum over classes of w_c ((1 - e) t_c + e/n) (-log q_c),
 *
 * w the class weights, e the label smoothing, and t the target distribution, which is 1 at the
 * label where the target is an index.  A class of coefficient 0 adds 0, also where q is 0; so does
 * a row of weight 0, whatever it holds.
 *
 * n counts the classes that a mask leaves in: only to them is the smoothing's share given.  A
 * label, or a target's share, on a masked class has q = 0 and an infinite loss.
 *
 * The label's class is added at the end, in float64, so an index needs no sum over the classes
 * unless labels are smoothed.  Sums with t_c and with 1 for all classes are kept apart, as are a
 * distance and what is to be added to it for -log q_c; coefficients that all classes have in common
 * come last.
 */

/* Operands that the kernels have in common, beside q, the label and the label to ignore. */
enum {
    K(CLASS_WEIGHT) = 3,
    K(ROW_WEIGHT),
    K(TARGET),
    K(INDEXED),
    K(SMOOTHING),
};

/* What a call asks for: a sum over a distribution, one over all classes. */
typedef struct {
    int soft, smooth;
    double e;     /* the label smoothing */
    double scale; /* about 1/n, a power of two, so that sums of huge terms stay in range */
} K(mix);

KLCE_INLINE K(mix) K(mix_of)(const klce_call *call)
{
    double e = *(const double *)call->arg[K(SMOOTHING)];
    int soft = *(const int64_t *)call->arg[K(INDEXED)] == 0, smooth = e != 0 && call->n > 0;
    return (K(mix)){soft, smooth, e, smooth ? ldexp(1, -ilogb((double)call->n) - 1) : 1};
}

/* A coefficient of 0 takes out an infinite value, but not nan. */
KLCE_INLINE K(v) K(weigh)(K(v) coefficient, K(v) value)
{
    K(m) nothing = K (and)(K(eq)(coefficient, K(set)(0)), K(eq)(value, value));
    return K(select)(nothing, K(set)(0), coefficient * value);
}

/* sum + coefficient * value, likewise. */
KLCE_INLINE double K(add_weighed)(double sum, double coefficient, double value)
{
    return coefficient == 0 && value == value ? sum : fma(coefficient, value, sum);
}

/* An operand of weights, and what one row of it is in the dtype that is computed in. */
KLCE_INLINE const real *K(weights_in)(const klce_call *call, int k, ptrdiff_t row)
{
    return (const real *)(call->arg[k] + row * call->step[k]);
}

/* A group of weights, which may be one for all classes; 0 beyond the row. */
KLCE_INLINE void K(load_weights)(const klce_call *call, int k, ptrdiff_t row, ptrdiff_t i,
                                 ptrdiff_t count, K(v) *group)
{
    const real *w = K(weights_in)(call, k, row);
    if (call->core[k] != 0)
        V(load_group)(w + i, count, 0, group);
    else
        EACH_VECTOR(v)
        {
            K(v) one = K(set)(*w);
            group[v] = count >= LANES ? one : K(select)(K(holds_class)(v, count), one, K(set)(0));
        }
}

KLCE_INLINE int K(is_in)(const klce_call *call, ptrdiff_t row, ptrdiff_t i)
{
    return !call->mask || call->mask[row * call->mask_step + i * call->mask_core];
}

KLCE_INLINE ptrdiff_t K(classes_in)(const klce_call *call, ptrdiff_t row)
{
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < call->n; i++)
        count += K(is_in)(call, row, i);
    return count;
}

/* Masked classes weigh nothing. */
KLCE_INLINE void K(mask_weights)(const klce_call *call, ptrdiff_t row, ptrdiff_t i, ptrdiff_t count,
                                 K(v) *group)
{
    real lane[LANES];
    EACH_VECTOR(v) V(store)(lane + v * WIDTH, group[v]);
    for (int j = 0; j < KLCE_LESSER(count, LANES); j++)
        if (!K(is_in)(call, row, i + j))
            lane[j] = 0;
    EACH_VECTOR(v) group[v] = V(load)(lane + v * WIDTH);
}

/* The distance of a group: -log q, or of logits how far they are below `top`, the maximum. */
typedef enum { K(LOGITS), K(LOG_PROBS), K(PROBS) } K(form);

KLCE_INLINE K(v) K(distance)(K(form) form, K(v) top, K(v) q)
{
    return form == K(LOGITS) ? top - q : K(set)(0) - (form == K(PROBS) ? K(log)(q) : q);
}

/* What a class adds: a coefficient of 0 takes out its distance.  Where that is nan, of logits, the
 * row has no sum of exponentials and is nan anyway. */
KLCE_INLINE K(v) K(weighed)(K(form) form, K(v) coefficient, K(v) distance)
{
    if (form != K(LOGITS))
        return K(weigh)(coefficient, distance);
    return K(select)(K(eq)(coefficient, K(set)(0)), K(set)(0), coefficient * distance);
}

/* The sums, as fields of a state: of w_c t_c times the distance and of scale w_c times it, and of
 * these coefficients alone. */
enum { K(BY_TARGET), K(BY_ALL), K(MASS_BY_TARGET), K(MASS_BY_ALL), K(LOSS_SUMS) };
LAST_FIELD(MASS_BY_ALL);

KLCE_INLINE int K(is_summed)(const K(mix) *mix, int sum)
{
    return sum == K(BY_TARGET) || sum == K(MASS_BY_TARGET) ? mix->soft : mix->smooth;
}

/* Whether all classes count and weigh 1, as a rule: coefficients are the target's, or scale. */
KLCE_INLINE int K(weighs_alike)(const klce_call *call, ptrdiff_t row)
{
    return !call->mask && call->core[K(CLASS_WEIGHT)] == 0 &&
           *K(weights_in)(call, K(CLASS_WEIGHT), row) == 1;
}

/* A target's share: a number below 0 is no probability, nor is an infinite one. */
KLCE_INLINE K(v) K(proper)(K(v) target)
{
    K(v) zero = K(set)(0), infinite = K(set)((real)INFINITY);
    K(m) is_proper = K (and)(K(not)(K(lt)(target, zero)), K(lt)(target, infinite));
    return K(select)(is_proper, target, K(set)((real)NAN));
}

/* Vectors of partial sums of a row. */
typedef struct {
    K(v) sum[K(LOSS_SUMS)][VECTORS];
} K(loss_parts);

KLCE_INLINE K(loss_parts) K(no_loss_parts)(void)
{
    K(loss_parts) parts;
    KLCE_UNROLL for (int f = 0; f < K(LOSS_SUMS); f++) EACH_VECTOR(v) parts.sum[f][v] = K(set)(0);
    return parts;
}

/* Adds `count` classes from class j on, up to a group, whatever coefficients there are. */
KLCE_INLINE void K(add_losses)(const klce_call *call, K(form) form, const K(mix) *mix, K(v) top,
                               ptrdiff_t row, ptrdiff_t j, ptrdiff_t count, K(loss_parts) *parts)
{
    K(v) group[VECTORS], weight[VECTORS], target[VECTORS], scale = K(set)((real)mix->scale);
    K(load_group)(K(row_in)(call, 0, row) + j, count, 1, group);
    K(load_weights)(call, K(CLASS_WEIGHT), row, j, count, weight);
    EACH_VECTOR(v) group[v] = K(distance)(form, top, group[v]);
    if (mix->soft) {
        K(load_weights)(call, K(TARGET), row, j, count, target);
        EACH_VECTOR(v)
        {
            K(v) t = weight[v] * K(proper)(target[v]), own = K(weighed)(form, t, group[v]);
            parts->sum[K(BY_TARGET)][v] = parts->sum[K(BY_TARGET)][v] + own;
            parts->sum[K(MASS_BY_TARGET)][v] = parts->sum[K(MASS_BY_TARGET)][v] + t;
        }
    }
    if (mix->smooth && call->mask)
        K(mask_weights)(call, row, j, count, weight);
    if (mix->smooth)
        EACH_VECTOR(v)
        {
            K(v) w = weight[v] * scale, own = K(weighed)(form, w, group[v]);
            parts->sum[K(BY_ALL)][v] = parts->sum[K(BY_ALL)][v] + own;
            parts->sum[K(MASS_BY_ALL)][v] = parts->sum[K(MASS_BY_ALL)][v] + w;
        }
}

/* The same of classes [j, end), where all weigh alike and one sum is asked for.  Of a target 5
 * instructions a vector beside the distance, of all classes 2.  Returns 0 where a coefficient of 0
 * may have met an infinite distance, or one is improper: then the sum is no number, or the least
 * target is below 0, and these classes have to be added with care. */
KLCE_INLINE int K(add_losses_alike)(const klce_call *call, K(form) form, const K(mix) *mix,
                                    K(v) top, ptrdiff_t row, ptrdiff_t j, ptrdiff_t end,
                                    K(loss_parts) *parts)
{
    const elem *q = K(row_in)(call, 0, row);
    const real *t = K(weights_in)(call, K(TARGET), row);
    K(v) group[VECTORS], zero = K(set)(0), least = zero, scale = K(set)((real)mix->scale);
    K(v) *by = parts->sum[mix->soft ? K(BY_TARGET) : K(BY_ALL)];
    K(v) *mass = parts->sum[K(MASS_BY_TARGET)];
    for (; j + LANES <= end; j += LANES) {
        K(load_group)(q + j, LANES, 0, group);
        if (mix->soft)
            V(prefetch_group)(t + j);
        EACH_VECTOR(v)
        {
            K(v) distance = K(distance)(form, top, group[v]);
            if (!mix->soft) {
                by[v] = by[v] + scale * distance;
                continue;
            }
            K(v) target = V(load)(t + j + v * WIDTH);
            by[v] = by[v] + target * distance;
            mass[v] = mass[v] + target;
            least = K(min)(target, least);
        }
    }
    if (mix->soft) {
        K(v) spoilt = zero;
        EACH_VECTOR(v) spoilt = spoilt + (by[v] - by[v]);
        if (K(any)(K(not)(K(eq)(spoilt + least, zero))))
            return 0;
    }
    if (j < end)
        K(add_losses)(call, form, mix, top, row, j, end - j, parts);
    return 1;
}

KLCE_INLINE void K(sum_losses)(const klce_call *call, K(form) form, K(mix) mix, int alike, real top,
                               ptrdiff_t row, ptrdiff_t low, ptrdiff_t high, double *sums)
{
    K(lanes) lanes[K(LOSS_SUMS)];
    KLCE_UNROLL for (int f = 0; f < K(LOSS_SUMS); f++) lanes[f] = K(no_lanes)();
    for (ptrdiff_t i = low; i < high; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, high);
        K(loss_parts) parts = K(no_loss_parts)();
        if (!alike || !K(add_losses_alike)(call, form, &mix, K(set)(top), row, i, end, &parts)) {
            parts = K(no_loss_parts)();
            for (ptrdiff_t j = i; j < end; j += LANES)
                K(add_losses)(call, form, &mix, K(set)(top), row, j, end - j, &parts);
        }
        KLCE_UNROLL for (int f = 0; f < K(LOSS_SUMS); f++) if (K(is_summed)(&mix, f))
            K(add_lanes)(&lanes[f], parts.sum[f]);
    }
    KLCE_UNROLL for (int f = 0; f < K(LOSS_SUMS); f++) sums[f * KLCE_TILE] =
        K(is_summed)(&mix, f) ? K(total)(&lanes[f]) : 0;
    if (alike && mix.smooth) /* powers of two, whose sum is exact */
        sums[K(MASS_BY_ALL) *KLCE_TILE] = mix.scale * (double)(high - low);
}

static KLCE_NOINLINE void K(sum_losses_of)(const klce_call *call, K(form) form, real top,
                                           ptrdiff_t row, ptrdiff_t low, ptrdiff_t high,
                                           double *sums)
{
    K(sum_losses)(call, form, K(mix_of)(call), 0, top, row, low, high, sums);
}

KLCE_INLINE void K(sweep_loss)(const klce_call *call, K(form) form, real top, ptrdiff_t row,
                               ptrdiff_t low, ptrdiff_t high, double *sums)
{
    K(mix) mix = K(mix_of)(call);
    int alike = K(weighs_alike)(call, row) && !(mix.soft && call->core[K(TARGET)] == 0);
    if (!mix.soft && !mix.smooth) {
        for (int f = 0; f < K(LOSS_SUMS); f++)
            sums[f * KLCE_TILE] = 0;
    } else if (!alike || (mix.soft && mix.smooth)) {
        K(sum_losses_of)(call, form, top, row, low, high, sums);
    } else if (mix.soft) { /* what is asked for is written out, for the compiler to know */
        mix.soft = 1, mix.smooth = 0;
        K(sum_losses)(call, form, mix, 1, top, row, low, high, sums);
    } else {
        mix.soft = 0, mix.smooth = 1;
        K(sum_losses)(call, form, mix, 1, top, row, low, high, sums);
    }
}

/* The same of WIDTH rows of few classes, side by side, with their target. */
KLCE_INLINE void K(sum_by_target_few)(const klce_call *call, K(form) form, K(v) top, const K(v) *q,
                                      ptrdiff_t row, double *sums)
{
    K(v) target[FEW], by[LANES], mass[LANES], zero = K(set)(0), spoilt = zero, least = zero;
    const real *weight = K(weights_in)(call, K(CLASS_WEIGHT), row);
    ptrdiff_t one = call->core[K(CLASS_WEIGHT)] / (ptrdiff_t)sizeof(real);
    int careful = !K(weighs_alike)(call, row);
    V(load_columns)(call, K(TARGET), row, target);
    if (!careful) { /* as add_losses_alike */
        EACH_GROUP(group, call->n) EACH_LANE(l, group, call->n)
        {
            K(v) t = target[group + l], own = t * K(distance)(form, top, q[group + l]);
            spoilt = K(fma)(own, zero, spoilt);
            least = K(min)(t, least);
            by[l] = group ? by[l] + own : own;
            mass[l] = group ? mass[l] + t : t;
        }
        careful = K(any)(K(not)(K(eq)(spoilt + least, zero)));
    }
    if (careful)
        EACH_GROUP(group, call->n) EACH_LANE(l, group, call->n)
        {
            K(v) t = K(set)(weight[(group + l) * one]) * K(proper)(target[group + l]);
            K(v) own = K(weighed)(form, t, K(distance)(form, top, q[group + l]));
            by[l] = group ? by[l] + own : own;
            mass[l] = group ? mass[l] + t : t;
        }
    K(sum_columns)(by, call->n, sums + FIELD(BY_TARGET));
    K(sum_columns)(mass, call->n, sums + FIELD(MASS_BY_TARGET));
}

/* Likewise, over all classes. */
KLCE_INLINE void K(sum_by_all_few)(const klce_call *call, K(form) form, real scale, K(v) top,
                                   const K(v) *q, ptrdiff_t row, double *sums)
{
    K(v) by[LANES], mass[LANES];
    const real *weight = K(weights_in)(call, K(CLASS_WEIGHT), row);
    ptrdiff_t n = call->n, one = call->core[K(CLASS_WEIGHT)] / (ptrdiff_t)sizeof(real);
    if (K(weighs_alike)(call, row)) {
        EACH_GROUP(group, n) EACH_LANE(l, group, n)
        {
            K(v) own = K(set)(scale) * K(distance)(form, top, q[group + l]);
            by[l] = group ? by[l] + own : own;
        }
        for (int i = 0; i < WIDTH; i++) /* powers of two, whose sum is exact */
            sums[FIELD(MASS_BY_ALL) + i] = (double)scale * (double)n;
    } else {
        EACH_GROUP(group, n) EACH_LANE(l, group, n)
        {
            K(v) w = K(set)(weight[(group + l) * one]) * K(set)(scale);
            K(v) own = K(weighed)(form, w, K(distance)(form, top, q[group + l]));
            by[l] = group ? by[l] + own : own;
            mass[l] = group ? mass[l] + w : w;
        }
        K(sum_columns)(mass, n, sums + FIELD(MASS_BY_ALL));
    }
    K(sum_columns)(by, n, sums + FIELD(BY_ALL));
}

/* The sums of a tile of rows of few classes, whose maxima stand in `max`; NULL for none. */
KLCE_INLINE void K(sum_loss_few)(const klce_call *call, K(form) form, const K(tile) *tile,
                                 const double *max, ptrdiff_t row, double *sums)
{
    K(mix) mix = K(mix_of)(call);
    K(v) zero = K(set)(0);
    memset(sums, 0, K(LOSS_SUMS) *KLCE_TILE * sizeof *sums);
    for (int i = 0; i < KLCE_TILE && call->n > 0; i += WIDTH) {
        const K(v) *q = tile->column[i / WIDTH];
        K(v) top = max ? K(load_field)(max + i) : zero;
        top = K(select)(K(eq)(top, K(set)(-(real)INFINITY)), zero, top);
        if (mix.soft)
            K(sum_by_target_few)(call, form, top, q, row + i, sums + i);
        if (mix.smooth)
            K(sum_by_all_few)(call, form, (real)mix.scale, top, q, row + i, sums + i);
    }
}

/* Whether rows may be taken side by side: those share their weights, and no class is masked. */
KLCE_INLINE int K(loss_has_few)(const klce_call *call)
{
    int spread = call->core[K(TARGET)] == 0 && *(const int64_t *)call->arg[K(INDEXED)] == 0;
    return !call->mask && call->step[K(CLASS_WEIGHT)] == 0 && !spread;
}

static void K(loss_prepare)(klce_call *call) { call->few_together = !K(loss_has_few)(call); }

/* What is at the labels of a tile, 0 and a weight of 1 without labels, and which rows count. */
typedef struct {
    K(labels) at;
    double class_weight[KLCE_TILE];
} K(picked);

/* Of labels that were read. */
KLCE_INLINE void K(pick_weights)(const klce_call *call, ptrdiff_t row, ptrdiff_t count,
                                 K(picked) *picked)
{
    ptrdiff_t one = call->core[K(CLASS_WEIGHT)] / (ptrdiff_t)sizeof(real);
    if (one == 0 && call->step[K(CLASS_WEIGHT)] == 0) { /* no class weights, as a rule */
        v_f64 weight = set_f64((double)*K(weights_in)(call, K(CLASS_WEIGHT), row));
        EACH_STATE(i, count)
        {
            m_f64 bad = lt_f64(load_f64(picked->at.label + i), set_f64(0));
            store_f64(picked->class_weight + i, select_f64(bad, set_f64(NAN), weight));
        }
        return;
    }
    /* Of few classes each is compared with: less than to read for every row, and in vectors, which
     * what follows would wait for otherwise. */
    if (call->n <= 16 && call->step[K(CLASS_WEIGHT)] == 0) {
        const real *weight = K(weights_in)(call, K(CLASS_WEIGHT), row);
        EACH_STATE(i, count)
        {
            v_f64 label = load_f64(picked->at.label + i), own = set_f64(NAN);
            for (ptrdiff_t j = 0; j < call->n; j++)
                own = select_f64(eq_f64(label, set_f64((double)j)),
                                 set_f64((double)weight[j * one]), own);
            store_f64(picked->class_weight + i, own);
        }
        return;
    }
    for (ptrdiff_t i = 0; i < count; i++) {
        ptrdiff_t label = (ptrdiff_t)picked->at.label[i];
        real weight = K(weights_in)(call, K(CLASS_WEIGHT), row + i)[label < 0 ? 0 : label * one];
        picked->class_weight[i] = label < 0 ? (real)NAN : weight;
    }
}

static KLCE_NOINLINE void K(pick_tile)(const klce_call *call, int indexed, ptrdiff_t row,
                                       ptrdiff_t count, K(picked) *picked)
{
    int64_t ignored = *(const int64_t *)call->arg[2];
    if (indexed) {
        K(read_at_labels)(call, row, count, &picked->at);
        K(pick_weights)(call, row, count, picked);
        return;
    }
    for (ptrdiff_t i = 0; i < count; i++) {
        int64_t label = *(const int64_t *)(call->arg[1] + (row + i) * call->step[1]);
        picked->at.value[i] = 0;
        picked->at.counted[i] = label != ignored;
        picked->class_weight[i] = 1;
    }
}

/* -log q at the labels of a tile, of log-probabilities or probabilities. */
KLCE_INLINE void K(distance_at_labels)(K(form) form, const K(picked) *picked, ptrdiff_t count,
                                       double *distance)
{
    EACH_STATE(i, count)
    {
        v_f64 q = load_f64(picked->at.value + i);
        store_f64(distance + i, -(form == K(PROBS) ? log_f64(q) : q));
    }
}

/* A tile, as far as it differs by form: distances at the labels are divided by t, then log is
 * added; `extra` is what comes to a row's loss beside. */
typedef struct {
    double t;
    const double *distance, *log, *extra, *sums;
} K(loss_tile);

/* As add_weighed. */
KLCE_INLINE v_f64 K(add_weighed_states)(v_f64 sum, v_f64 coefficient, v_f64 value)
{
    m_f64 nothing = and_f64(eq_f64(coefficient, set_f64(0)), eq_f64(value, value));
    return select_f64(nothing, sum, fma_f64(coefficient, value, sum));
}

KLCE_INLINE v_f64 K(over)(v_f64 coefficient, double t)
{
    return t == 1 ? coefficient : coefficient / set_f64(t);
}

/* The losses and weights of a tile's rows, to operands k and k + 1.  Coefficients are multiplied
 * first: distances may be near the largest number. */
static KLCE_NOINLINE void K(put_losses)(const klce_call *call, int k, ptrdiff_t row,
                                        ptrdiff_t count, const K(mix) *mix, const K(picked) *picked,
                                        const K(loss_tile) *of)
{
    double loss[KLCE_TILE], weight[KLCE_TILE], row_weight[KLCE_TILE], share[KLCE_TILE];
    int shared = call->step[K(ROW_WEIGHT)] == 0;
    double all = mix->smooth ? mix->e / ((double)call->n * mix->scale) : 0;
    double of_all = shared ? (double)*K(weights_in)(call, K(ROW_WEIGHT), row) : 0;
    for (int i = 0; i < KLCE_TILE; i++) {
        row_weight[i] = of_all;
        share[i] = all; /* of the sum over all classes */
    }
    if (!shared && count == KLCE_TILE && call->step[K(ROW_WEIGHT)] == sizeof(real)) {
        const real *weights = K(weights_in)(call, K(ROW_WEIGHT), row);
        EACH_STATE(i, count) store_f64(row_weight + i, K(load_doubles)(weights + i));
    } else if (!shared) {
        for (ptrdiff_t i = 0; i < count; i++)
            row_weight[i] = *K(weights_in)(call, K(ROW_WEIGHT), row + i);
    }
    for (ptrdiff_t i = 0; i < count && mix->smooth && call->mask; i++) {
        double n = (double)K(classes_in)(call, row + i);
        share[i] = n > 0 ? mix->e / (n * mix->scale) : 0;
    }
    int sweeps = mix->soft || mix->smooth;
    v_f64 zero = set_f64(0);
    EACH_STATE(i, count)
    {
        const double *sums = of->sums + i;
        v_f64 s = load_f64(row_weight + i), counted = load_f64(picked->at.counted + i);
        m_f64 ignored = or_f64(eq_f64(counted, zero), eq_f64(s, zero));
        v_f64 total = select_f64(ignored, zero, s * load_f64(picked->class_weight + i));
        v_f64 own = mix->soft ? zero : set_f64(1 - mix->e) * total, mass = own;
        v_f64 by_target = s * set_f64(1 - mix->e), by_all = s * load_f64(share + i);
        if (sweeps) {
            mass = fma_f64(by_target, load_f64(sums + FIELD(MASS_BY_TARGET)), mass);
            mass = fma_f64(by_all, load_f64(sums + FIELD(MASS_BY_ALL)), mass);
        }
        v_f64 sum = fma_f64(mass, load_f64(of->log + i), s * load_f64(of->extra + i));
        if (sweeps) {
            sum =
                K(add_weighed_states)(sum, K(over)(by_all, of->t), load_f64(sums + FIELD(BY_ALL)));
            sum = K(add_weighed_states)(sum, K(over)(by_target, of->t),
                                        load_f64(sums + FIELD(BY_TARGET)));
        }
        sum = K(add_weighed_states)(sum, K(over)(own, of->t), load_f64(of->distance + i));
        store_f64(loss + i, select_f64(ignored, zero, sum));
        store_f64(weight + i, total);
    }
    K(put)(call, k, row, count, loss);
    K(put)(call, k + 1, row, count, weight);
}
