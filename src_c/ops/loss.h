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
    double e, scale; /* about 1/n, a power of two, so that sums of huge terms stay in range */
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
    int one = call->core[k] == 0;
    if (count >= LANES) {
        EACH_VECTOR(v) group[v] = one ? K(set)(*w) : V(load)(w + i + v * WIDTH);
    } else {
        real lane[LANES];
        for (int j = 0; j < LANES; j++)
            lane[j] = j < count ? w[one ? 0 : i + j] : 0;
        EACH_VECTOR(v) group[v] = V(load)(lane + v * WIDTH);
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

KLCE_INLINE void K(sweep_loss)(const klce_call *call, K(form) form, real top, ptrdiff_t row,
                               ptrdiff_t low, ptrdiff_t high, double *sums)
{
    K(mix) mix = K(mix_of)(call);
    const elem *q = K(row_in)(call, 0, row);
    K(v) group[VECTORS], weight[VECTORS], target[VECTORS], sum[K(LOSS_SUMS)][VECTORS];
    K(v) zero = K(set)(0), infinite = K(set)((real)INFINITY), no_number = K(set)((real)NAN);
    K(v) scale = K(set)((real)mix.scale);
    K(lanes) lanes[K(LOSS_SUMS)];
    for (int f = 0; f < K(LOSS_SUMS); f++) {
        lanes[f] = K(no_lanes)();
        sums[f * KLCE_TILE] = 0;
    }
    if (!mix.soft && !mix.smooth)
        return;
    for (ptrdiff_t i = low; i < high; i += FLUSH) {
        ptrdiff_t end = KLCE_LESSER(i + FLUSH, high);
        for (int f = 0; f < K(LOSS_SUMS); f++)
            EACH_VECTOR(v) sum[f][v] = zero;
        for (ptrdiff_t j = i; j < end; j += LANES) {
            K(load_group)(q + j, end - j, 1, group);
            K(load_weights)(call, K(CLASS_WEIGHT), row, j, end - j, weight);
            EACH_VECTOR(v) group[v] = K(distance)(form, K(set)(top), group[v]);
            if (mix.soft) {
                K(load_weights)(call, K(TARGET), row, j, end - j, target);
                EACH_VECTOR(v)
                {
                    /* A number below 0 is no probability, nor is an infinite one. */
                    K(v) t = target[v];
                    K(m) proper = K (and)(K(not)(K(lt)(t, zero)), K(lt)(t, infinite));
                    t = weight[v] * K(select)(proper, t, no_number);
                    sum[K(BY_TARGET)][v] = sum[K(BY_TARGET)][v] + K(weighed)(form, t, group[v]);
                    sum[K(MASS_BY_TARGET)][v] = sum[K(MASS_BY_TARGET)][v] + t;
                }
            }
            if (mix.smooth && call->mask)
                K(mask_weights)(call, row, j, end - j, weight);
            if (mix.smooth)
                EACH_VECTOR(v)
                {
                    K(v) w = weight[v] * scale;
                    sum[K(BY_ALL)][v] = sum[K(BY_ALL)][v] + K(weighed)(form, w, group[v]);
                    sum[K(MASS_BY_ALL)][v] = sum[K(MASS_BY_ALL)][v] + w;
                }
        }
        for (int f = 0; f < K(LOSS_SUMS); f++)
            if (K(is_summed)(&mix, f))
                K(add_lanes)(&lanes[f], sum[f]);
    }
    for (int f = 0; f < K(LOSS_SUMS); f++)
        if (K(is_summed)(&mix, f))
            sums[f * KLCE_TILE] = K(total)(&lanes[f]);
}

/* The same of a tile of rows of few classes, whose maxima stand in `max`; NULL for none. */
KLCE_INLINE void K(sum_loss_few)(const klce_call *call, K(form) form, const K(tile) *tile,
                                 const double *max, ptrdiff_t row, double *sums)
{
    K(mix) mix = K(mix_of)(call);
    K(v) target[FEW], sum[K(LOSS_SUMS)][LANES], zero = K(set)(0);
    K(v) infinite = K(set)((real)INFINITY), no_number = K(set)((real)NAN);
    const real *weight = K(weights_in)(call, K(CLASS_WEIGHT), row);
    ptrdiff_t one = call->core[K(CLASS_WEIGHT)] / (ptrdiff_t)sizeof(real);
    int counts = one == 0 && *weight != 0; /* every class, where all have one weight */
    memset(sums, 0, K(LOSS_SUMS) *KLCE_TILE * sizeof *sums);
    for (int i = 0; i < KLCE_TILE && (mix.soft || mix.smooth); i += WIDTH) {
        const K(v) *q = tile->column[i / WIDTH];
        K(v) top = max ? K(load_field)(max + i) : zero;
        top = K(select)(K(eq)(top, -infinite), zero, top);
        if (mix.soft)
            V(load_columns)(call, K(TARGET), row + i, target);
        EACH_GROUP(group, call->n) EACH_LANE(l, group, call->n)
        {
            ptrdiff_t j = group + l;
            K(v) distance = K(distance)(form, top, q[j]), w = K(set)(weight[j * one]);
            if (mix.soft) {
                K(m)
                proper = K (and)(K(not)(K(lt)(target[j], zero)), K(lt)(target[j], infinite));
                K(v) t = w * K(select)(proper, target[j], no_number);
                K(v) own = K(weighed)(form, t, distance);
                sum[K(BY_TARGET)][l] = group ? sum[K(BY_TARGET)][l] + own : own;
                sum[K(MASS_BY_TARGET)][l] = group ? sum[K(MASS_BY_TARGET)][l] + t : t;
            }
            if (mix.smooth) {
                K(v) t = w * K(set)((real)mix.scale);
                K(v) own = counts ? t * distance : K(weighed)(form, t, distance);
                sum[K(BY_ALL)][l] = group ? sum[K(BY_ALL)][l] + own : own;
                sum[K(MASS_BY_ALL)][l] = group ? sum[K(MASS_BY_ALL)][l] + t : t;
            }
        }
        for (int f = 0; f < K(LOSS_SUMS); f++)
            if (K(is_summed)(&mix, f))
                K(sum_columns)(sum[f], call->n, sums + f * KLCE_TILE + i);
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
    for (ptrdiff_t i = 0; i < count && !shared; i++)
        row_weight[i] = *K(weights_in)(call, K(ROW_WEIGHT), row + i);
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
