/* Tests of the core, src_c: every op of ops.def, in every dtype,
 * on every ISA that this machine has.
 *
 * Operands come from an op's signature, so that a new op is tested without an edit here: its
 * results must be finite, and the same to the bit for any number of threads, any layout, and
 * whichever other rows are in the call. Ops that `known` lists are checked against long double as
 * well.
 *
 * `test_core --sparse [OP...]` takes fewer sizes, and of these ops only.
 * `test_core --checksums` prints "ISA OP DTYPE HASH" lines instead. ISAs that have a fused
 * multiply-add print the same hashes, on any platform: operands are therefore made by arithmetic
 * that rounds alike everywhere, without the mathematical library. */
#include "cpus.h"
#include "klce.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What was being tested, for the message of a failure. */
static char where[160];

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: failed: %s\n  %s, on %s\n", __FILE__, __LINE__, #condition,    \
                    where, klce_active_isa()->name);                                               \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

typedef long double wide;

/* ---- Random numbers ---- */

static uint64_t random_state;

static uint64_t random_bits(void)
{ /* splitmix64 */
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static double uniform(void) { return (double)(random_bits() >> 11) * 0x1p-53; }

/* Near enough to a standard normal. */
static double bell(void) { return (uniform() + uniform() + uniform() + uniform() - 2) * 1.75; }

/* ---- The specification, in long double, one row at a time ---- */

typedef struct {
    ptrdiff_t n;
    const wide *x, *y, *z, *u; /* the row's classes */
    wide s;
    int64_t label, i; /* `i` and `d` stand for all of the op's parameters of that letter */
    wide d;
} row;

/* Writes the row's results, and for each the size that an error is measured against: that of the
 * terms where a sum of both signs gives the result. */
typedef void specification(const row *r, wide *want, wide *size);

/* A compensated sum: equal terms, all rounded to the same side, would cost digits otherwise. */
typedef struct {
    wide total, lost;
} sum;

static void add(sum *s, wide term)
{
    wide next = s->total + (term + s->lost);
    s->lost = isinf(next) ? 0 : (term + s->lost) - (next - s->total);
    s->total = next;
}

typedef struct {
    wide max, rest; /* rest: the sum of exp((x - max)/t) over all but one maximum */
} split;

static split split_of(const wide *x, ptrdiff_t n, wide t)
{
    ptrdiff_t best = 0;
    for (ptrdiff_t k = 1; k < n; k++)
        best = x[k] > x[best] ? k : best;
    sum rest = {0, 0};
    for (ptrdiff_t k = 0; k < n; k++)
        add(&rest, k == best ? 0 : expl((x[k] - x[best]) / t));
    return (split){x[best], rest.total};
}

/* The result itself is its size. */
static void plain(wide value, wide *want, wide *size) { *want = value, *size = fabsl(value); }

static void lse_at(const row *r, wide t, wide *want, wide *size)
{
    split s = split_of(r->x, r->n, t);
    *want = s.max / t + log1pl(s.rest);
    *size = fabsl(s.max / t) + log1pl(s.rest);
}

static void logsumexp(const row *r, wide *want, wide *size) { lse_at(r, 1, want, size); }

static void softmax(const row *r, wide *want, wide *size)
{
    split s = split_of(r->x, r->n, r->d);
    for (ptrdiff_t k = 0; k < r->n; k++)
        plain(expl((r->x[k] - s.max) / r->d) / (1 + s.rest), want + k, size + k);
}

static void log_softmax(const row *r, wide *want, wide *size)
{
    split s = split_of(r->x, r->n, r->d);
    for (ptrdiff_t k = 0; k < r->n; k++)
        plain((r->x[k] - s.max) / r->d - log1pl(s.rest), want + k, size + k);
}

static wide loss(const row *r, wide t)
{
    split s = split_of(r->x, r->n, t);
    return r->label == r->i ? 0 : (s.max - r->x[r->label]) / t + log1pl(s.rest);
}

static void cross_entropy(const row *r, wide *want, wide *size)
{
    wide lse, unused;
    lse_at(r, r->d, &lse, &unused);
    plain(loss(r, r->d) + (r->label == r->i ? 0 : r->d * lse * lse), want, size);
}

static void nll(const row *r, wide *want, wide *size)
{
    plain(r->label == r->i ? 0 : -r->x[r->label], want, size);
}

static void nll_probs(const row *r, wide *want, wide *size)
{
    plain(r->label == r->i ? 0 : -logl(r->x[r->label]), want, size);
}

/* The loss of a row with weights, from -log q of each class, and its weight in a mean. */
static void weighted(const row *r, bool at_label, wide smoothing,
                     wide of_class(const row *, ptrdiff_t), wide *want, wide *size)
{
    sum loss = {0, 0}, terms = {0, 0};
    for (ptrdiff_t k = 0; r->label != r->i && k < r->n; k++) {
        wide target = at_label ? k == r->label : r->z[k];
        wide own = r->y[k] * (1 - smoothing) * target, share = r->y[k] * smoothing / r->n;
        if (own != 0 || share != 0) {
            wide value = of_class(r, k);
            add(&loss, (own + share) * value);
            add(&terms, (fabsl(own) + fabsl(share)) * fabsl(value));
        }
    }
    want[0] = r->s * loss.total, size[0] = r->s * terms.total;
    plain(r->label == r->i ? 0 : at_label ? r->s * r->y[r->label] : r->s, want + 1, size + 1);
}

static wide minus(const row *r, ptrdiff_t k) { return -r->x[k]; }

static wide minus_log(const row *r, ptrdiff_t k) { return -logl(r->x[k]); }

static void weighted_nll(const row *r, wide *want, wide *size)
{
    weighted(r, true, 0, minus, want, size);
}

static void weighted_nll_probs(const row *r, wide *want, wide *size)
{
    weighted(r, true, 0, minus_log, want, size);
}

static void loss_log_probs(const row *r, wide *want, wide *size)
{
    weighted(r, r->i != 0, r->d, minus, want, size);
}

static void loss_probs(const row *r, wide *want, wide *size)
{
    weighted(r, r->i != 0, r->d, minus_log, want, size);
}

static void loss_logits(const row *r, wide *want, wide *size)
{
    wide lse, lse_size, *surprise = malloc((size_t)(r->n + 1) * sizeof *surprise);
    split s = split_of(r->x, r->n, r->d);
    for (ptrdiff_t k = 0; k < r->n; k++)
        surprise[k] = (r->x[k] - s.max) / r->d - log1pl(s.rest);
    row of_surprise = *r;
    of_surprise.x = surprise;
    weighted(&of_surprise, r->i != 0, r->d, minus, want, size);
    free(surprise);
    lse_at(r, r->d, &lse, &lse_size);
    if (r->label != r->i) {
        want[0] += r->s * r->d * lse * lse;
        size[0] += r->s * r->d * lse_size * lse_size;
    }
}

static wide sum_of(const wide *x, ptrdiff_t n)
{
    sum s = {0, 0};
    for (ptrdiff_t k = 0; k < n; k++)
        add(&s, x[k]);
    return s.total;
}

/* Of the distribution p, or of its logarithms. */
static wide entropy(wide p, wide log_p) { return p == 0 ? 0 : -p * log_p; }

static void entropy_probs(const row *r, wide *want, wide *size)
{
    wide scale = r->i ? sum_of(r->x, r->n) : 1;
    sum h = {0, 0};
    for (ptrdiff_t k = 0; k < r->n; k++)
        add(&h, entropy(r->x[k] / scale, logl(r->x[k] / scale)));
    plain(h.total, want, size);
}

static void entropy_log_probs(const row *r, wide *want, wide *size)
{
    sum h = {0, 0};
    for (ptrdiff_t k = 0; k < r->n; k++)
        add(&h, entropy(expl(r->x[k]), r->x[k]));
    plain(h.total, want, size);
}

static void entropy_at(const row *r, wide t, wide *want, wide *size)
{
    split s = split_of(r->x, r->n, t);
    sum h = {log1pl(s.rest), 0};
    for (ptrdiff_t k = 0; k < r->n; k++)
        add(&h, entropy(expl((r->x[k] - s.max) / t), (r->x[k] - s.max) / t) / (1 + s.rest));
    plain(h.total, want, size);
}

static void entropy_logits(const row *r, wide *want, wide *size)
{
    entropy_at(r, r->d, want, size);
}

/* The plain sum of p log(p/q); its size is that of the terms, which differ in sign. */
static void add_plain(wide p, wide log_ratio, sum *want, sum *size)
{
    if (p > 0) {
        add(want, p * log_ratio);
        add(size, fabsl(p * log_ratio));
    }
}

/* The term of distributions, with d = log(q/p): q - p + p log(p/q). The differences add up to 0,
 * and take out what rounding left of the scale. */
static wide divergence(wide p, wide q, wide d) { return p > 0 ? p * (expm1l(d) - d) : q; }

static void kl_probs(const row *r, wide *want, wide *size)
{
    wide p_sum = sum_of(r->x, r->n), q_sum = sum_of(r->y, r->n);
    sum kl = {0, 0}, terms = {0, 0};
    for (ptrdiff_t k = 0; k < r->n; k++) {
        wide p = r->x[k] / p_sum, q = r->y[k] / q_sum;
        if (r->i)
            add(&kl, divergence(p, q, logl(q / p)));
        else
            add_plain(r->x[k], logl(r->x[k] / r->y[k]), &kl, &terms);
    }
    *want = kl.total, *size = r->i ? kl.total : terms.total;
}

static void kl_log_probs(const row *r, wide *want, wide *size)
{
    sum kl = {0, 0}, terms = {0, 0};
    for (ptrdiff_t k = 0; k < r->n; k++)
        add_plain(expl(r->x[k]), r->x[k] - r->y[k], &kl, &terms);
    *want = kl.total, *size = terms.total;
}

static void kl_logits(const row *r, wide *want, wide *size)
{
    split a = split_of(r->x, r->n, r->d), b = split_of(r->y, r->n, r->d);
    sum kl = {0, 0};
    for (ptrdiff_t k = 0; k < r->n; k++) {
        wide u = (r->x[k] - a.max) / r->d - log1pl(a.rest);
        wide v = (r->y[k] - b.max) / r->d - log1pl(b.rest);
        add(&kl, divergence(expl(u), expl(v), v - u));
    }
    plain(kl.total, want, size);
}

/* Of p and q with d = log(q/p): half of p log(p/m) + q log(q/m), by v = (q - p)/(q + p). */
static wide jensen_shannon(wide p, wide q, wide d)
{
    wide v = tanhl(d / 2), side = 0;
    if (v < 1)
        side += (1 - v) * log1pl(-v);
    if (v > -1)
        side += (1 + v) * log1pl(v);
    return p > 0 && q > 0 ? (p + q) / 4 * side : (p + q) / 2 * logl(2);
}

typedef enum { LOGITS, LOG_PROBS, PROBS } domain;

/* The logarithm of a probability is that of x, or x/t, less the shift. */
typedef struct {
    bool probs;
    wide t, shift;
} side;

static side side_of(const row *r, const wide *x, domain form)
{
    side s = {form == PROBS, r->d, 0};
    if (r->i && s.probs) {
        s.shift = logl(sum_of(x, r->n));
    } else if (r->i) {
        split parts = split_of(x, r->n, s.t);
        s.shift = parts.max / s.t + log1pl(parts.rest);
    }
    return s;
}

static wide log_share(side s, wide x) { return (s.probs ? logl(x) : x / s.t) - s.shift; }

static void kl_pair(const row *r, domain form_p, domain form_q, wide *want, wide *size)
{
    side a = side_of(r, r->x, form_p), b = side_of(r, r->y, form_q);
    sum kl = {0, 0}, terms = {0, 0};
    bool impossible = false;
    for (ptrdiff_t k = 0; k < r->n; k++) {
        wide u = log_share(a, r->x[k]), v = log_share(b, r->y[k]);
        impossible |= isinf(v) && !isinf(u); /* however small p is */
        if (r->i)
            add(&kl, divergence(expl(u), expl(v), v - u));
        else
            add_plain(expl(u), u - v, &kl, &terms);
    }
    if (impossible)
        kl.total = INFINITY;
    *want = kl.total, *size = r->i ? kl.total : terms.total;
}

static void js_pair(const row *r, domain form_p, domain form_q, wide *want, wide *size)
{
    side a = side_of(r, r->x, form_p), b = side_of(r, r->y, form_q);
    sum js = {0, 0};
    for (ptrdiff_t k = 0; k < r->n; k++) {
        wide u = log_share(a, r->x[k]), v = log_share(b, r->y[k]);
        add(&js, jensen_shannon(expl(u), expl(v), v - u));
    }
    plain(js.total, want, size);
}

static void kl_probs_logits(const row *r, wide *want, wide *size)
{
    kl_pair(r, PROBS, LOG_PROBS, want, size);
}

static void kl_logits_probs(const row *r, wide *want, wide *size)
{
    kl_pair(r, LOG_PROBS, PROBS, want, size);
}

static void kl_logits_logits(const row *r, wide *want, wide *size)
{
    kl_pair(r, LOG_PROBS, LOG_PROBS, want, size);
}

static void js_probs_probs(const row *r, wide *want, wide *size)
{
    js_pair(r, PROBS, PROBS, want, size);
}

static void js_probs_logits(const row *r, wide *want, wide *size)
{
    js_pair(r, PROBS, LOG_PROBS, want, size);
}

static void js_logits_logits(const row *r, wide *want, wide *size)
{
    js_pair(r, LOG_PROBS, LOG_PROBS, want, size);
}

/* Of factors y, none negative; the size is that of the parts of the largest terms. */
static void logsumexp_scaled(const row *r, wide *want, wide *size)
{
    wide top = -INFINITY;
    sum s = {0, 0};
    for (ptrdiff_t k = 0; k < r->n; k++)
        if (r->y[k] > 0)
            top = fmaxl(top, r->x[k] + logl(r->y[k]));
    *size = 0;
    if (top == -INFINITY) { /* every factor is 0, and so is the sum */
        *want = -INFINITY;
        want[1] = size[1] = 0;
        return;
    }
    for (ptrdiff_t k = 0; k < r->n; k++) {
        wide z = r->y[k] > 0 ? r->x[k] + logl(r->y[k]) : -INFINITY;
        add(&s, expl(z - top));
        if (z > top - 50)
            *size = fmaxl(*size, fabsl(r->x[k]) + fabsl(logl(r->y[k])));
    }
    *want = top + logl(s.total);
    want[1] = 1, size[1] = 0;
}

static void rel_entr(const row *r, wide *want, wide *size)
{
    for (ptrdiff_t k = 0; k < r->n; k++) {
        /* Near 1 a rounded quotient would cost the logarithm its digits. */
        wide p = r->x[k], q = r->y[k],
             log = fabsl(q - p) < p / 2 ? log1pl((q - p) / p) : logl(q / p);
        plain(p > 0 ? -p * log : 0, want + k, size + k);
    }
}

static void information(const row *r, wide *want, wide *size)
{
    for (ptrdiff_t k = 0; k < r->n; k++)
        plain(-logl(r->x[k]), want + k, size + k);
}

static void binary_entropy(const row *r, wide *want, wide *size)
{
    for (ptrdiff_t k = 0; k < r->n; k++) {
        wide p = r->x[k];
        plain(entropy(p, logl(p)) + entropy(1 - p, log1pl(-p)), want + k, size + k);
    }
}

static void binary_loss(const row *r, ptrdiff_t k, wide if_true, wide if_false, wide *want,
                        wide *size)
{
    wide positive = r->u[k] * r->y[k];
    wide loss = positive == 0 ? 0 : positive * if_true;
    loss += r->y[k] == 1 ? 0 : (1 - r->y[k]) * if_false;
    plain(r->z[k] == 0 ? 0 : r->z[k] * loss, want + k, size + k);
}

static void binary_cross_entropy_probs(const row *r, wide *want, wide *size)
{
    for (ptrdiff_t k = 0; k < r->n; k++)
        binary_loss(r, k, -logl(r->x[k]), -log1pl(-r->x[k]), want, size);
}

static void binary_cross_entropy_logits(const row *r, wide *want, wide *size)
{
    for (ptrdiff_t k = 0; k < r->n; k++) {
        wide x = r->x[k], both = log1pl(expl(-fabsl(x)));
        binary_loss(r, k, fmaxl(-x, 0) + both, fmaxl(x, 0) + both, want, size);
    }
}

/* The candidates are the first classes. */
enum { CANDIDATES = 3, SCORE_TOP = 4, COMPARE_TOP = 2 };

static ptrdiff_t argmax(const wide *x, ptrdiff_t n)
{
    ptrdiff_t best = 0;
    for (ptrdiff_t k = 1; k < n; k++)
        best = x[k] > x[best] ? k : best;
    return best;
}

/* Whether k is among the first `size` of a stable sort, the largest first; *place is where. */
static bool is_in_top(const wide *x, ptrdiff_t n, ptrdiff_t k, ptrdiff_t size, ptrdiff_t *place)
{
    *place = 0;
    for (ptrdiff_t j = 0; j < n && *place < size; j++)
        *place += x[j] > x[k] || (x[j] == x[k] && j < k);
    return *place < size;
}

static void score(const row *r, wide *want, wide *size)
{
    split s = split_of(r->x, r->n, r->d);
    wide log = log1pl(s.rest), own = (r->x[r->label] - s.max) / r->d - log, second = -INFINITY;
    bool counts = r->label != r->i;
    ptrdiff_t best = argmax(r->x, r->n), rank = 0, place, k = 0;
    sum mean = {0, 0}, squares = {0, 0};
    for (ptrdiff_t j = 0; j < r->n; j++) {
        second = j != best && r->x[j] > second ? r->x[j] : second;
        rank += counts && r->x[j] >= r->x[r->label];
        wide away = (s.max - r->x[j]) / r->d, w = expl(-away) / (1 + s.rest);
        add(&mean, w > 0 ? w * away : 0);
    }
    for (ptrdiff_t j = 0; j < r->n; j++) {
        wide away = (s.max - r->x[j]) / r->d, w = expl(-away) / (1 + s.rest);
        add(&squares, w > 0 ? w * (away - mean.total) * (away - mean.total) : 0);
    }
    plain(counts ? -own : 0, want + k, size + k), k++;
    plain(counts ? own : (wide)NAN, want + k, size + k), k++;
    plain(counts ? expl(own) : (wide)NAN, want + k, size + k), k++;
    plain(-log, want + k, size + k), k++;
    plain((s.max - second) / r->d, want + k, size + k), k++;
    lse_at(r, r->d, want + k, size + k), k++;
    entropy_at(r, r->d, want + k, size + k), k++;
    want[k] = squares.total;
    size[k++] = sqrtl(squares.total * (squares.total + mean.total * mean.total));
    want[k] = rank, size[k++] = 0;
    want[k] = best, size[k++] = 0;
    want[k] = counts && best == r->label, size[k++] = 0;
    for (ptrdiff_t j = 0; j < CANDIDATES && j < r->n; j++, k++)
        plain((r->x[j] - s.max) / r->d - log, want + k, size + k);
    for (ptrdiff_t j = 0; j < SCORE_TOP; j++) {
        want[k + j] = -1, want[k + SCORE_TOP + j] = NAN;
        size[k + j] = size[k + SCORE_TOP + j] = 0;
    }
    for (ptrdiff_t j = 0; j < r->n; j++)
        if (is_in_top(r->x, r->n, j, SCORE_TOP, &place)) {
            ptrdiff_t at = k + SCORE_TOP + place;
            want[k + place] = j;
            plain((r->x[j] - s.max) / r->d - log, want + at, size + at);
        }
}

static void compare(const row *r, wide *want, wide *size)
{
    split a = split_of(r->x, r->n, r->d), b = split_of(r->y, r->n, r->d);
    sum kl = {0, 0}, reverse = {0, 0}, js = {0, 0}, variation = {0, 0}, agreement = {0, 0};
    row other = *r;
    wide change = NAN, prob_change = NAN, logs = 1, h[2], h_size[2], nll[2] = {0, 0};
    ptrdiff_t place, k = 0, shared = 0;
    other.x = r->y;
    entropy_at(r, r->d, h, h_size);
    entropy_at(&other, r->d, h + 1, h_size + 1);
    for (ptrdiff_t j = 0; j < r->n; j++) {
        wide u = (r->x[j] - a.max) / r->d - log1pl(a.rest);
        wide v = (r->y[j] - b.max) / r->d - log1pl(b.rest), p = expl(u), q = expl(v);
        add(&kl, divergence(p, q, v - u));
        add(&reverse, divergence(q, p, u - v));
        add(&js, jensen_shannon(p, q, v - u));
        add(&variation, fabsl(q - p) / 2);
        add(&agreement, p * q);
        if (j == r->label && r->label != r->i) {
            change = v - u, prob_change = q - p, logs = fmaxl(fabsl(u), fabsl(v));
            nll[0] = -u, nll[1] = -v;
        }
        shared += is_in_top(r->x, r->n, j, COMPARE_TOP, &place) &&
                  is_in_top(r->y, r->n, j, COMPARE_TOP, &place);
    }
    const wide numbers[] = {kl.total,
                            reverse.total,
                            js.total,
                            variation.total,
                            h[0] + kl.total,
                            h[1] + reverse.total,
                            h[0],
                            h[1],
                            agreement.total,
                            change,
                            prob_change,
                            nll[0],
                            nll[1],
                            -log1pl(a.rest),
                            -log1pl(b.rest)};
    const ptrdiff_t best[] = {argmax(r->x, r->n), argmax(r->y, r->n)};
    for (; k < 15; k++)
        plain(numbers[k], want + k, size + k);
    /* Differences are as good as what they are the difference of; the agreement is of products. */
    /* Below 1e-12 the bound of a divergence is absolute, and so that of a cross-entropy. */
    for (int number = 0; number < 6; number++)
        size[number] = fmaxl(size[number], 1e-12L);
    size[3] = fmaxl(size[3], 0.1L), size[8] *= 2, size[9] = fmaxl(logs, 1), size[10] = 1;
    want[k] = best[0] == best[1], size[k++] = 0;
    want[k] = shared, size[k++] = 0;
    for (int side = 0; side < 2; side++, k++)
        want[k] = best[side], size[k] = 0;
    for (int side = 0; side < 2; side++, k++)
        want[k] = r->label != r->i && best[side] == r->label, size[k] = 0;
}

/* The bounds are relative, in ULP of float32 and of float64: of what is computed in. */
static const struct {
    const char *name;
    specification *specification;
    domain domain;
    int ulp[2];
} known[] = {
    {"logsumexp", logsumexp, LOGITS, {2, 4}},
    {"logsumexp_scaled", logsumexp_scaled, LOGITS, {2, 4}},
    {"softmax", softmax, LOGITS, {2, 4}},
    {"log_softmax", log_softmax, LOGITS, {2, 4}},
    {"cross_entropy", cross_entropy, LOGITS, {2, 4}},
    {"nll", nll, LOG_PROBS, {0, 0}},
    {"nll_probs", nll_probs, PROBS, {1, 1}},
    {"weighted_nll", weighted_nll, LOG_PROBS, {1, 2}},
    {"weighted_nll_probs", weighted_nll_probs, PROBS, {1, 2}},
    {"loss_logits", loss_logits, LOGITS, {2, 4}},
    {"loss_log_probs", loss_log_probs, LOG_PROBS, {2, 4}},
    {"loss_probs", loss_probs, PROBS, {2, 4}},
    {"entropy_probs", entropy_probs, PROBS, {4, 4}},
    {"entropy_log_probs", entropy_log_probs, LOG_PROBS, {4, 4}},
    {"entropy_logits", entropy_logits, LOGITS, {4, 4}},
    {"kl_probs", kl_probs, PROBS, {8, 450}},
    {"kl_log_probs", kl_log_probs, LOG_PROBS, {8, 450}},
    {"kl_logits", kl_logits, LOGITS, {8, 450}},
    {"kl_probs_logits", kl_probs_logits, PROBS, {8, 450}},
    {"kl_logits_probs", kl_logits_probs, LOG_PROBS, {8, 450}},
    {"kl_logits_logits", kl_logits_logits, LOG_PROBS, {8, 450}},
    {"js_probs_probs", js_probs_probs, PROBS, {8, 450}},
    {"js_probs_logits", js_probs_logits, PROBS, {8, 450}},
    {"js_logits_logits", js_logits_logits, LOG_PROBS, {8, 450}},
    {"rel_entr", rel_entr, PROBS, {4, 4}},
    {"information", information, PROBS, {1, 1}},
    {"binary_entropy", binary_entropy, PROBS, {4, 4}},
    {"binary_cross_entropy_probs", binary_cross_entropy_probs, PROBS, {4, 4}},
    {"binary_cross_entropy_logits", binary_cross_entropy_logits, LOGITS, {4, 4}},
    {"score", score, LOGITS, {4, 4}},
    {"compare", compare, LOGITS, {8, 450}},
};

/* What the second operand holds, where that is something else than the first. */
static const struct {
    const char *name;
    domain domain;
} second[] = {
    {"logsumexp_scaled", PROBS},
    {"kl_probs_logits", LOG_PROBS},
    {"kl_logits_probs", PROBS},
    {"js_probs_logits", LOG_PROBS},
};

static int find_known(klce_op op)
{
    for (int i = 0; i < (int)(sizeof known / sizeof *known); i++)
        if (strcmp(known[i].name, klce_op_names[op]) == 0)
            return i;
    return -1;
}

/* ---- A problem: an op, a dtype, and its operands one after the other ---- */

typedef struct {
    klce_op op;
    klce_dtype dtype;
    ptrdiff_t rows, n;
    int count, outputs_from;
    char letter[KLCE_MAX_ARGS];
    size_t size[KLCE_MAX_ARGS];       /* of an element */
    ptrdiff_t classes[KLCE_MAX_ARGS]; /* elements a row */
    char *values[KLCE_MAX_ARGS];      /* of the inputs, contiguous */
} problem;

/* What is computed in, and results of one value a row are. */
static klce_dtype real_of(klce_dtype dtype)
{
    return klce_real_sizes[dtype] == 4 ? KLCE_DTYPE_f32 : KLCE_DTYPE_f64;
}

/* An operand's dtype, by its letter. */
static klce_dtype dtype_of(const problem *p, int k)
{
    return strchr("swS", p->letter[k]) ? real_of(p->dtype) : p->dtype;
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    CHECK(memory || !bytes);
    return memory;
}

/* Outputs stand one after the other, whatever their alignment. */
static int64_t get_label(const char *values, ptrdiff_t k)
{
    int64_t label;
    memcpy(&label, values + k * 8, 8);
    return label;
}

/* A dtype of 16 bits by its number of fraction bits and the exponent of its smallest numbers.  By
 * arithmetic, where the core works on bits. */
typedef struct {
    int fraction, least;
} half_format;

static half_format format_of(klce_dtype dtype)
{
    return dtype == KLCE_DTYPE_f16 ? (half_format){10, -24} : (half_format){7, -133};
}

static double half_value(half_format f, uint16_t bits)
{
    int exponent = (bits & 0x7fff) >> f.fraction, fraction = bits & ((1 << f.fraction) - 1);
    double x;
    if (exponent == 0x7fff >> f.fraction)
        x = fraction ? (double)NAN : (double)INFINITY;
    else
        x = ldexp(fraction + (exponent ? 1 << f.fraction : 0),
                  f.least + (exponent ? exponent - 1 : 0));
    return bits & 0x8000 ? -x : x;
}

/* Rounded to the nearest, ties to even, as nearbyint does. */
static uint16_t half_bits(half_format f, double x)
{
    int exponent, sign = signbit(x) ? 0x8000 : 0, infinity = 0x7fff >> f.fraction << f.fraction;
    if (isnan(x))
        return (uint16_t)(infinity | 1 << (f.fraction - 1));
    x = fabs(x);
    frexp(x, &exponent);
    int place = exponent - 1 - f.fraction;
    if (place < f.least || x == 0)
        place = f.least;
    double units = isinf(x) ? x : nearbyint(ldexp(x, -place));
    double bits = units + ldexp(place - f.least, f.fraction);
    return (uint16_t)(sign | (bits < infinity ? (int)bits : infinity));
}

static double get(klce_dtype dtype, const char *values, ptrdiff_t k)
{
    uint16_t half;
    float narrow;
    double x;
    if (klce_elem_sizes[dtype] == 2)
        return memcpy(&half, values + k * 2, 2), half_value(format_of(dtype), half);
    if (dtype == KLCE_DTYPE_f64)
        return memcpy(&x, values + k * 8, 8), x;
    return memcpy(&narrow, values + k * 4, 4), narrow;
}

static void put(klce_dtype dtype, char *values, ptrdiff_t k, double x)
{
    float narrow = (float)x;
    if (klce_elem_sizes[dtype] == 2) {
        uint16_t half = half_bits(format_of(dtype), x);
        memcpy(values + k * 2, &half, 2);
    } else if (dtype == KLCE_DTYPE_f32) {
        memcpy(values + k * 4, &narrow, 4);
    } else {
        memcpy(values + k * 8, &x, 8);
    }
}

/* Six kinds of rows in turn: flat, ordinary, wide, far from 0, with ties,
 * with a masked beginning. */
static double draw(domain domain, int kind, bool masked)
{
    static const double scale[] = {0.05, 1, 12, 1, 2, 3};
    if (domain == PROBS) {
        double p = (1 - uniform()) * (kind == 2 ? uniform() * 0x1p-20 : 1);
        return kind == 4 ? 0.25 * (1 + (int)(3 * p)) : kind == 5 && masked ? 0 : p;
    }
    double x = bell() * scale[kind];
    if (domain == LOG_PROBS)
        x = (x < 0 ? x : -x) - (kind == 3 ? 50 : 1);
    else if (kind == 3)
        x += 10000;
    return kind == 4 ? (int)x : kind == 5 && masked ? -1e9 : x;
}

/* What an operand holds: weights and targets are probabilities; a new op gets logits. */
static domain domain_of(const problem *p, int k)
{
    int which = find_known(p->op);
    if (strchr("ws", p->letter[k]) || (p->letter[k] == 'e' && k > 0))
        return PROBS;
    if (which < 0)
        return LOGITS;
    for (size_t i = 0; k > 0 && i < sizeof second / sizeof *second; i++)
        if (strcmp(second[i].name, known[which].name) == 0)
            return second[i].domain;
    return known[which].domain;
}

/* Each second row of a pair in one form is near the row of the operand before. */
static void fill_row(const problem *p, int k, ptrdiff_t row)
{
    domain domain = domain_of(p, k);
    ptrdiff_t n = p->classes[k];
    double sum = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        int kind = (int)((row + p->n) % 6);
        double x = draw(domain, kind, j < n / 3);
        bool pair = k > 0 && p->letter[k - 1] == p->letter[k];
        if (pair && row % 2 == 0 && domain_of(p, k - 1) == domain) {
            double near = get(dtype_of(p, k - 1), p->values[k - 1], row * n + j);
            x = domain == PROBS ? fmin(1, near * (1 + 0.1 * (uniform() - 0.5)))
                                : near + 0.1 * bell();
        }
        put(dtype_of(p, k), p->values[k], row * n + j, x);
        sum += x;
    }
    if (domain == PROBS && n > 1 && p->letter[k] != 'e' && sum > 0)
        for (ptrdiff_t j = 0; j < n; j++)
            put(dtype_of(p, k), p->values[k], row * n + j,
                get(dtype_of(p, k), p->values[k], row * n + j) / sum);
}

static bool is_integer(char letter) { return letter == 'l' || letter == 'L'; }

/* How many values a row has of operand k, of which it has several: in the first two outputs one for
 * each statistic, in the others of candidates or of the top. */
static ptrdiff_t several(const problem *p, int k)
{
    const bool scores = strcmp(klce_op_names[p->op], "score") == 0;
    const klce_statistic *statistics = scores ? klce_score_statistics : klce_compare_statistics;
    const int known = scores ? KLCE_SCORE_COUNT : KLCE_COMPARE_COUNT;
    ptrdiff_t count = 0;
    if (!p->outputs_from || k == p->outputs_from + 2)
        return p->n < CANDIDATES ? p->n : CANDIDATES;
    if (k > p->outputs_from + 2)
        return SCORE_TOP;
    for (int bit = 0; bit < known; bit++)
        count += (statistics[bit].letter == 'S') == (p->letter[k] == 'S');
    return count;
}

static problem new_problem(klce_op op, klce_dtype dtype, ptrdiff_t rows, ptrdiff_t n, int64_t i,
                           double d)
{
    problem p = {.op = op, .dtype = dtype, .rows = rows, .n = n};
    if (strchr(klce_op_signatures[op], 'e')) /* one row, however long */
        p.n = rows * n, p.rows = 1;
    random_state = (uint64_t)op << 40 ^ (uint64_t)rows << 20 ^ (uint64_t)n;
    for (const char *s = klce_op_signatures[op]; *s; s++) {
        int k = p.count;
        if (*s == '>') {
            p.outputs_from = k;
            continue;
        }
        CHECK(strchr("vgewslidSL", *s) && k < KLCE_MAX_ARGS);
        p.letter[k] = *s;
        p.size[k] = strchr("lidL", *s) ? 8 : klce_elem_sizes[dtype_of(&p, k)];
        p.classes[k] = strchr("vgew", *s) ? p.n : strchr("SL", *s) ? several(&p, k) : 1;
        p.count++;
    }
    /* Integers beyond the first: every statistic, and how large a top. */
    const bool has_statistics = strchr(klce_op_signatures[op], 'S') != NULL;
    const int64_t integers[] = {i, has_statistics ? -1 : i, has_statistics ? COMPARE_TOP : i};
    for (int k = 0, integer = 0; k < p.outputs_from; k++) {
        ptrdiff_t own_rows = strchr("id", p.letter[k]) ? 1 : p.rows;
        p.values[k] = allocate((size_t)(own_rows * p.classes[k]) * p.size[k]);
        for (ptrdiff_t r = 0; r < own_rows; r++) {
            if (p.letter[k] == 'i')
                memcpy(p.values[k], &integers[integer++], 8);
            else if (p.letter[k] == 'd')
                memcpy(p.values[k], &d, 8);
            else if (p.letter[k] == 'l') /* without classes every row is ignored */
                ((int64_t *)p.values[k])[r] = p.n ? (int64_t)(random_bits() % (uint64_t)p.n) : i;
            else if (p.letter[k] == 'L')
                for (ptrdiff_t j = 0; j < p.classes[k]; j++)
                    ((int64_t *)p.values[k])[r * p.classes[k] + j] = j;
            else
                fill_row(&p, k, r);
        }
    }
    snprintf(where, sizeof where, "%s %s, %td rows of %td classes, parameters %d and %g",
             klce_op_names[op], klce_dtype_names[dtype], p.rows, p.n, (int)i, d);
    return p;
}

static void free_problem(problem *p)
{
    for (int k = 0; k < p->outputs_from; k++)
        free(p->values[k]);
}

/* ---- Running a problem, its operands laid out in one way or another ---- */

typedef enum { CONTIGUOUS, APART, SPACED, TRANSPOSED, REVERSED, LAYOUTS } layout;

/* Exactly the memory that the operand needs, so that an address sanitizer sees a step beyond. */
typedef struct {
    char *memory, *first;
    ptrdiff_t step, core;
} operand;

static operand new_operand(ptrdiff_t rows, ptrdiff_t n, size_t element, layout layout)
{
    ptrdiff_t size = (ptrdiff_t)element;
    operand o = {.step = n * size, .core = size};
    if (layout == APART)
        o.step = (n + 3) * size;
    else if (layout == SPACED)
        o.core = 2 * size, o.step = (2 * n + 1) * size;
    else if (layout == TRANSPOSED)
        o.core = rows * size, o.step = size;
    bool empty = rows == 0 || n == 0;
    ptrdiff_t last = !empty ? (rows - 1) * o.step + (n - 1) * o.core : -size;
    o.memory = o.first = allocate((size_t)(last + size));
    if (layout == REVERSED && !empty) {
        o.first += last;
        o.core = -o.core, o.step = -o.step;
    }
    return o;
}

/* Between an operand's memory and contiguous values. */
static void copy(operand o, ptrdiff_t rows, ptrdiff_t n, size_t size, char *values, bool out)
{
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t j = 0; j < n; j++, values += size) {
            char *there = o.first + r * o.step + j * o.core;
            char *to = out ? values : there, *from = out ? there : values;
            if (size == 2)
                memcpy(to, from, 2);
            else if (size == 4)
                memcpy(to, from, 4);
            else
                memcpy(to, from, 8);
        }
}

static size_t row_outputs(const problem *p)
{
    size_t elements = 0;
    for (int k = p->outputs_from; k < p->count; k++)
        elements += (size_t)p->classes[k];
    return elements;
}

static size_t output_bytes(const problem *p)
{
    size_t bytes = 0;
    for (int k = p->outputs_from; k < p->count; k++)
        bytes += (size_t)(p->rows * p->classes[k]) * p->size[k];
    return bytes;
}

/* Platforms differ in the bits of the nan that they make. */
static void settle_nan(const problem *p, int k, char *values)
{
    for (ptrdiff_t j = 0; !is_integer(p->letter[k]) && j < p->rows * p->classes[k]; j++)
        if (isnan(get(dtype_of(p, k), values, j)))
            put(dtype_of(p, k), values, j, (double)NAN);
}

/* The outputs one after the other, contiguous, for the caller to free. */
static char *run(const problem *p, layout layout, bool in_place)
{
    atomic_int labels_met;
    atomic_init(&labels_met, 0);
    klce_call call = {
        .op = p->op, .dtype = p->dtype, .rows = p->rows, .n = p->n, .labels_met = &labels_met};
    operand operands[KLCE_MAX_ARGS];
    for (int k = 0; k < p->count; k++) {
        bool parameter = p->letter[k] == 'i' || p->letter[k] == 'd';
        ptrdiff_t rows = parameter ? 1 : p->rows;
        if (in_place && k == p->outputs_from)
            operands[k] = operands[0];
        else
            operands[k] = new_operand(rows, p->classes[k], p->size[k], layout);
        if (k < p->outputs_from)
            copy(operands[k], rows, p->classes[k], p->size[k], p->values[k], false);
        call.arg[k] = operands[k].first;
        call.step[k] = parameter ? 0 : operands[k].step;
        call.core[k] = parameter ? 0 : operands[k].core;
        call.extent[k] = p->classes[k];
    }
    CHECK(klce_run(&call) == KLCE_OK);
    CHECK(!(atomic_load(&labels_met) & KLCE_BAD_LABEL));
    char *results = allocate(output_bytes(p)), *end = results;
    for (int k = p->outputs_from; k < p->count; k++) {
        copy(operands[k], p->rows, p->classes[k], p->size[k], end, true);
        settle_nan(p, k, end);
        end += (size_t)(p->rows * p->classes[k]) * p->size[k];
    }
    for (int k = 0; k < p->count; k++)
        if (!in_place || k != p->outputs_from)
            free(operands[k].memory);
    return results;
}

static bool same_bits(const problem *p, const char *a, const char *b)
{
    return !output_bytes(p) || memcmp(a, b, output_bytes(p)) == 0;
}

/* ---- Checks of one problem on the active ISA ---- */

static void check_finite(const problem *p, const char *results)
{
    for (int k = p->outputs_from; k < p->count; k++) {
        for (ptrdiff_t j = 0; !is_integer(p->letter[k]) && j < p->rows * p->classes[k]; j++)
            CHECK(isfinite(get(dtype_of(p, k), results, j)));
        results += (size_t)(p->rows * p->classes[k]) * p->size[k];
    }
}

static wide *widen(const problem *p, int k, ptrdiff_t r)
{
    ptrdiff_t n = p->classes[k];
    wide *x = allocate((size_t)n * sizeof *x);
    for (ptrdiff_t j = 0; j < n; j++)
        x[j] = get(dtype_of(p, k), p->values[k], r * n + j);
    return x;
}

/* The specification's results for one row, for the caller to free; their sizes follow. */
static wide *specify(const problem *p, specification *specification, ptrdiff_t r)
{
    row row = {.n = p->n, .label = -1};
    wide *operands[4] = {NULL};
    int vectors = 0, integers = 0;
    for (int k = 0; k < p->outputs_from; k++) {
        if (strchr("vgew", p->letter[k]))
            operands[vectors++] = widen(p, k, r);
        else if (p->letter[k] == 's')
            row.s = get(dtype_of(p, k), p->values[k], r);
        else if (p->letter[k] == 'l')
            row.label = ((int64_t *)p->values[k])[r];
        else if (p->letter[k] == 'i' &&
                 !integers++) /* statistics, and the top's size, come later */
            row.i = *(int64_t *)p->values[k];
        else if (p->letter[k] == 'd')
            row.d = *(double *)p->values[k];
    }
    row.x = operands[0], row.y = operands[1], row.z = operands[2], row.u = operands[3];
    wide *want = allocate(2 * row_outputs(p) * sizeof *want);
    specification(&row, want, want + row_outputs(p));
    for (int v = 0; v < vectors; v++)
        free(operands[v]);
    return want;
}

static void check_close(const problem *p, const char *results, ptrdiff_t r, const wide *want)
{
    bool narrow = real_of(p->dtype) == KLCE_DTYPE_f32;
    wide ulp = narrow ? 0x1p-23L : 0x1p-52L, least = narrow ? 0x1p-149L : 0x1p-1074L;
    int which = find_known(p->op);
    for (int k = p->outputs_from; k < p->count; k++) {
        /* Elements of 16 bits are rounded once more. */
        half_format half = format_of(p->dtype);
        bool rounded = klce_elem_sizes[dtype_of(p, k)] == 2;
        wide own = rounded ? ldexpl(1, -1 - half.fraction) : 0;
        wide own_least = rounded ? ldexpl(1, half.least - 1) : 0;
        for (ptrdiff_t at = r * p->classes[k]; at < (r + 1) * p->classes[k]; at++, want++) {
            wide size = want[row_outputs(p)];
            if (strncmp(known[which].name, "kl_", 3) == 0 ||
                strncmp(known[which].name, "js_", 3) == 0)
                size = fmaxl(size, 1e-12L); /* below, the bound is absolute */
            wide got = is_integer(p->letter[k]) ? get_label(results, at)
                                                : get(dtype_of(p, k), results, at);
            wide bound = known[which].ulp[!narrow] * ulp * size + least;
            bound = is_integer(p->letter[k]) ? 0 : bound + own * fabsl(*want) + own_least;
            if (got == *want || (isnan(got) && isnan(*want))) /* infinities too */
                continue;
            if (!(fabsl(got - *want) <= bound))
                fprintf(stderr, "row %td: %.17Lg instead of %.17Lg, an error of %.3Lg bounds\n", r,
                        got, *want, fabsl(got - *want) / bound);
            CHECK(fabsl(got - *want) <= bound);
        }
        results += (size_t)(p->rows * p->classes[k]) * p->size[k];
    }
}

/* A row's result does not depend on the rows around it. */
static void check_alone(const problem *p, const char *results, ptrdiff_t r)
{
    problem alone = *p;
    alone.rows = 1;
    for (int k = 0; k < p->outputs_from; k++)
        if (p->letter[k] != 'i' && p->letter[k] != 'd')
            alone.values[k] += (size_t)(r * p->classes[k]) * p->size[k];
    char *own = run(&alone, CONTIGUOUS, false), *end = own;
    for (int k = p->outputs_from; k < p->count; k++) {
        size_t bytes = (size_t)p->classes[k] * p->size[k];
        if (bytes && memcmp(end, results + (size_t)r * bytes, bytes) && p->letter[k] == 's')
            fprintf(stderr, "row %td: %.17g alone, %.17g among others\n", r,
                    get(real_of(p->dtype), end, 0), get(real_of(p->dtype), results, r));
        CHECK(!bytes || memcmp(end, results + (size_t)r * bytes, bytes) == 0);
        end += bytes;
        results += (size_t)p->rows * bytes;
    }
    free(own);
}

static void check_same(const problem *p, const char *results, layout layout, bool in_place)
{
    char *again = run(p, layout, in_place);
    CHECK(same_bits(p, results, again));
    free(again);
}

static bool is_map(const problem *p)
{
    return p->count == p->outputs_from + 1 && p->letter[0] == p->letter[p->outputs_from];
}

static void check_layouts(const problem *p, const char *results)
{
    for (int layout = 0; layout < LAYOUTS; layout++) {
        check_same(p, results, layout, false);
        if (is_map(p))
            check_same(p, results, layout, true);
    }
}

static const int several_threads[] = {2, 3, 7};
enum { SEVERAL = sizeof several_threads / sizeof *several_threads };

static void check_threads(const problem *p, const char *results)
{
    for (int t = 0; t < SEVERAL; t++) {
        klce_set_num_threads(several_threads[t]);
        check_same(p, results, CONTIGUOUS, false);
        check_same(p, results, TRANSPOSED, false);
        if (is_map(p))
            check_same(p, results, CONTIGUOUS, true);
    }
    klce_set_num_threads(1);
}

/* ---- All problems ---- */

/* The thread sanitizer is slow, and cares for how work is shared out, which is no matter of the
 * dtype: tests/c/run asks for calls that use threads only, in float32 and on one ISA. Where long
 * double has more than x87's 64 bits it is emulated, and so, likely, is the machine: a fifth of the
 * problems is checked there, and the checksums speak for the others. */
#ifndef ONLY_SHARING
#define ONLY_SHARING false
#endif
enum { MANY = 100000 }; /* elements: more than it takes for a call to use threads */

static bool is_left_out(const problem *p, bool special)
{
    if (ONLY_SHARING)
        return special || p->dtype != KLCE_DTYPE_f32 || p->rows * p->n < MANY;
    return LDBL_MANT_DIG > 64 && p->n % 5 != 0;
}

typedef void visitor(const problem *p, bool special);

/* Puts what is no ordinary number into a few rows: nothing is said of the results but that they
 * are the same everywhere. */
static void add_specials(problem *p)
{
    static const double specials[] = {NAN,      INFINITY, -INFINITY, 0,       -0.0,
                                      -1,       FLT_MAX,  -FLT_MAX,  FLT_MIN, FLT_MIN / 8,
                                      0x1p-149, 1e-310,   DBL_MAX,   -DBL_MAX};
    enum { N = sizeof specials / sizeof *specials };
    for (int k = 0; k < p->outputs_from; k++)
        for (ptrdiff_t r = 0; strchr("vge", p->letter[k]) && p->n && r < p->rows; r++) {
            ptrdiff_t many = r % 3 == 2 ? p->n : r % 3 + 1; /* one, two, or nothing else */
            double special = specials[random_bits() % N];
            for (ptrdiff_t m = 0; m < many; m++) {
                double x = r % 6 == 5 ? special : specials[random_bits() % N];
                ptrdiff_t j = many == p->n ? m : (ptrdiff_t)(random_bits() % (uint64_t)p->n);
                if (p->dtype != KLCE_DTYPE_f64 && fabs(x) > FLT_MAX && isfinite(x))
                    x = x < 0 ? -FLT_MAX : FLT_MAX;
                put(p->dtype, p->values[k], r * p->n + j, x);
            }
        }
}

static void visit(klce_op op, klce_dtype dtype, ptrdiff_t rows, ptrdiff_t n, visitor *visitor)
{
    /* A new op is only promised parameters of 1. */
    int sets = find_known(op) < 0 || !strpbrk(klce_op_signatures[op], "id") ? 1 : 2;
    for (int set = 0; set < sets; set++) {
        problem p = new_problem(op, dtype, rows, n, set ? 0 : 1, set ? 0.75 : 1);
        visitor(&p, false);
        if (n <= 70 || n > 20000) {
            add_specials(&p);
            strcat(where, ", special values");
            visitor(&p, true);
        }
        free_problem(&p);
    }
}

/* Fewer sizes: asked for of slow builds, and enough for checksums, which use one thread. */
static bool sparse, one_thread;

static void visit_all(klce_op op, klce_dtype dtype, visitor *visitor)
{
    static const ptrdiff_t around[] = {128, 256, 512, 1024, 2048, 32768};
    /* Elements of 16 bits differ from float32 in how they are loaded and stored alone. */
    bool half = klce_elem_sizes[dtype] == 2, few = sparse || half;
    for (ptrdiff_t n = 0; n <= 70; n++) {
        bool at_width = (n + 1) % 16 <= 2, some = n < 5 || (n % 5 == 0 && !(sparse && half));
        if (at_width || some || (n < 35 && !few))
            visit(op, dtype, n && n < 4 ? 19 : 1 + n * 7 % 40, n, visitor);
    }
    for (size_t i = 0; i < sizeof around / sizeof *around; i++)
        for (ptrdiff_t n = around[i] - 1; n <= around[i] + 1; n++)
            if (!few || n % 2048 == 1)
                visit(op, dtype, n < 600 ? 19 : sparse ? 2 : 3, n, visitor);
    /* Shared out by rows, by segments, and by either, as the number of threads may be. */
    if (!one_thread && (dtype == KLCE_DTYPE_f32 || !few))
        visit(op, dtype, ONLY_SHARING ? 40000 : 12000, ONLY_SHARING ? 3 : 9, visitor);
    if (!few || (ONLY_SHARING && !half)) {
        visit(op, dtype, 1, 100000, visitor);
        visit(op, dtype, 9, 17000, visitor);
    }
}

static void check_problem(const problem *p, bool special)
{
    char *results[16] = {NULL}, *first_wide = NULL;
    int isas = klce_isa_count(), which = find_known(p->op);
    CHECK(isas <= 16);
    if (is_left_out(p, special))
        return;
    for (int i = 0; i < isas; i++) {
        const klce_isa *isa = klce_isa_at(i);
        if (klce_select_isa(isa->name) != 0 || (ONLY_SHARING && results[0]))
            continue;
        results[i] = run(p, CONTIGUOUS, false);
        if (which < 0 && p->n && !special)
            check_finite(p, results[i]);
        if (p->rows * p->n >= MANY) {
            check_threads(p, results[i]);
        } else {
            check_layouts(p, results[i]);
            ptrdiff_t step = sparse || p->n > 70 ? p->rows - 1 : 1;
            for (ptrdiff_t r = 0; p->rows > 1 && r < p->rows; r += step)
                check_alone(p, results[i], r);
        }
        if (isa->vector_bytes >= 32) { /* those have a fused multiply-add, all of them */
            first_wide = first_wide ? first_wide : results[i];
            CHECK(same_bits(p, first_wide, results[i]));
        }
    }
    ptrdiff_t checked = p->n <= 1025 ? 3 : LDBL_MANT_DIG > 64 || ONLY_SHARING ? 0 : 1;
    for (ptrdiff_t r = 0; which >= 0 && p->n && !special && r < p->rows && r < checked; r++) {
        wide *want = specify(p, known[which].specification, r);
        for (int i = 0; i < isas; i++) {
            if (results[i] && klce_select_isa(klce_isa_at(i)->name) == 0) /* for the message */
                check_close(p, results[i], r, want);
        }
        free(want);
    }
    for (int i = 0; i < isas; i++)
        free(results[i]);
}

/* ---- Labels, sums, dispatch ---- */

static void test_check_labels(void)
{
    int64_t labels[] = {0, 4, -100, 2, 5, -1, 3}, counted = -1;
    CHECK(klce_check_labels(labels, 4, 5, -100, &counted) == -1 && counted == 3);
    CHECK(klce_check_labels(labels, 7, 5, -100, &counted) == 4);
    CHECK(klce_check_labels(labels, 7, 6, -100, &counted) == 5);
    CHECK(klce_check_labels(labels, 7, 6, -1, &counted) == 2);
    CHECK(klce_check_labels(NULL, 0, 5, -100, &counted) == -1 && counted == 0);

    /* So many that several threads look at them. */
    enum { MANY = 100000 };
    int64_t *many = allocate(MANY * sizeof *many);
    for (int t = 0; t < SEVERAL; t++) {
        klce_set_num_threads(several_threads[t]);
        for (ptrdiff_t i = 0; i < MANY; i++)
            many[i] = i % 10;
        CHECK(klce_check_labels(many, MANY, 10, 3, &counted) == -1 && counted == MANY * 9 / 10);
        CHECK(klce_check_labels(many, MANY, 10, -100, &counted) == -1 && counted == MANY);
        many[MANY - 1] = 10;
        CHECK(klce_check_labels(many, MANY, 10, -100, &counted) == MANY - 1);
        many[70000] = many[50000] = -1;
        CHECK(klce_check_labels(many, MANY, 10, -100, &counted) == 50000);
        CHECK(klce_check_labels(many, MANY, 10, -1, &counted) == MANY - 1);
    }
    klce_set_num_threads(1);
    free(many);
}

/* Whole arrays of 16-bit elements, in parts of several threads; nothing is written behind them. */
static void test_widen(void)
{
    enum { MANY = 100003 };
    uint16_t *halves = allocate(MANY * sizeof *halves);
    float *reals = allocate((MANY + 1) * sizeof *reals);
    for (ptrdiff_t i = 0; i < MANY; i++)
        halves[i] = (uint16_t)i;
    for (klce_dtype dtype = 0; dtype < KLCE_DTYPE_COUNT; dtype++)
        for (int t = 0; t < SEVERAL && klce_elem_sizes[dtype] == 2; t++) {
            klce_set_num_threads(several_threads[t]);
            memset(reals, 0, (MANY + 1) * sizeof *reals);
            klce_widen(dtype, (const char *)halves, MANY, reals);
            ptrdiff_t wrong = reals[MANY] != 0;
            for (ptrdiff_t i = 0; i < MANY; i++) {
                double value = half_value(format_of(dtype), halves[i]);
                wrong += isnan(value) ? !isnan(reals[i]) : (double)reals[i] != value;
            }
            CHECK(wrong == 0);
            klce_widen(dtype, (const char *)halves, 0, NULL);
        }
    klce_set_num_threads(1);
    free(halves);
    free(reals);
}

/* A label that went wrong after the check: nan, and the caller is told. */
static void test_bad_labels(void)
{
    static const int64_t wrong[] = {-1, 7, INT64_MIN, INT64_MAX};
    for (klce_op op = 0; op < KLCE_OP_COUNT; op++)
        for (size_t w = 0; strchr(klce_op_signatures[op], 'l') && w < 4; w++) {
            const char *signature = klce_op_signatures[op];
            int outputs_from = (int)(strchr(signature, '>') - signature);
            if (memchr(signature, 'l', (size_t)outputs_from) == NULL)
                continue;
            double x[14], y[KLCE_MAX_ARGS][2] = {{0}}, d = 1;
            int64_t label[2] = {3, wrong[w]}, i = -100, candidates[2] = {0};
            /* Of several statistics the first that is asked for tells. */
            int64_t want = op == KLCE_OP_compare ? 1 << KLCE_compare_target_log_prob_change : 1;
            for (int j = 0; j < 14; j++)
                x[j] = 0.5;
            atomic_int labels_met;
            atomic_init(&labels_met, 0);
            klce_call call = {
                .op = op, .dtype = KLCE_DTYPE_f64, .rows = 2, .n = 7, .labels_met = &labels_met};
            bool statistics = strchr(signature, 'S') != NULL;
            for (int k = 0, integers = 0; k < (int)strlen(signature) - 1; k++) {
                char letter = signature[k + (k >= outputs_from)];
                call.arg[k] = k >= outputs_from ? (char *)y[k]
                              : letter == 'l'   ? (char *)label
                              : letter == 'L'   ? (char *)candidates
                              : letter == 'i'   ? (char *)(integers++ && statistics ? &want : &i)
                              : letter == 'd'   ? (char *)&d
                                                : (char *)x;
                call.step[k] = letter == 'i' || letter == 'd' ? 0 : strchr("vgw", letter) ? 56 : 8;
                call.core[k] = 8;
                call.extent[k] = 1;
            }
            CHECK(klce_run(&call) == KLCE_OK);
            CHECK(atomic_load(&labels_met) == KLCE_BAD_LABEL);
            CHECK(isfinite(y[outputs_from][0]) && isnan(y[outputs_from][1]));
            /* So it is with one that is ignored, which is no trouble. */
            label[1] = i;
            atomic_init(&labels_met, 0);
            CHECK(klce_run(&call) == KLCE_OK);
            CHECK(!(atomic_load(&labels_met) & KLCE_BAD_LABEL));
            if (signature[outputs_from + 1] == 's')
                CHECK(atomic_load(&labels_met) == KLCE_IGNORED_LABEL);
        }
}

/* The sum on one thread, which is that on several to the bit. */
static double sum_on_threads(klce_dtype dtype, const void *values, ptrdiff_t count)
{
    ptrdiff_t step = (ptrdiff_t)klce_elem_sizes[dtype];
    double sum = klce_sum(dtype, values, count, step);
    for (int t = 0; t < SEVERAL; t++) {
        klce_set_num_threads(several_threads[t]);
        double again = klce_sum(dtype, values, count, step);
        CHECK(memcmp(&again, &sum, sizeof sum) == 0);
    }
    klce_set_num_threads(1);
    return sum;
}

static void test_sum(void)
{
    enum { COUNT = 300007 }; /* more than threads share out at a time */
    double *values = allocate(COUNT * sizeof *values);
    float *narrow = allocate(COUNT * sizeof *narrow);
    wide sum = 0, narrow_sum = 0, size = 0;
    for (ptrdiff_t i = 0; i < COUNT; i++) {
        values[i] = bell() * (i % 1000 == 0 ? 1e12 : 1);
        narrow[i] = (float)values[i];
        sum += values[i], narrow_sum += narrow[i], size += fabs(values[i]);
    }
    CHECK(fabsl(sum_on_threads(KLCE_DTYPE_f64, values, COUNT) - sum) < 0x1p-50L * size);
    CHECK(fabsl(sum_on_threads(KLCE_DTYPE_f32, narrow, COUNT) - narrow_sum) < 0x1p-50L * size);
    CHECK(klce_sum(KLCE_DTYPE_f64, (char *)values, 0, 8) == 0);
    CHECK(klce_sum(KLCE_DTYPE_f64, (char *)(values + 1), 2, -8) == values[1] + values[0]);
    double lost[] = {1e100, 1, -1e100};
    CHECK(klce_sum(KLCE_DTYPE_f64, (char *)(lost + 1), 1000, 0) == 1000);
    for (ptrdiff_t i = 0; i < 768; i++)
        values[i] = i % 256 ? 0 : lost[i / 256];
    CHECK(klce_sum(KLCE_DTYPE_f64, (char *)values, 768, 8) == 1);
    values[300] = INFINITY;
    CHECK(klce_sum(KLCE_DTYPE_f64, (char *)values, 768, 8) == INFINITY);
    values[700] = NAN;
    CHECK(isnan(klce_sum(KLCE_DTYPE_f64, (char *)values, 768, 8)));
    free(values);
    free(narrow);
}

/* The sum of results that are not kept is that of those that are, to the bit. */
static void check_total(klce_call *call, int out, void *results)
{
    klce_dtype dtype = klce_real_sizes[call->dtype] == 4 ? KLCE_DTYPE_f32 : KLCE_DTYPE_f64;
    ptrdiff_t size = (ptrdiff_t)klce_real_sizes[call->dtype];
    call->arg[out] = results;
    call->step[out] = size;
    CHECK(klce_run(call) == KLCE_OK);
    double sum = klce_sum(dtype, results, call->rows, size);
    call->arg[out] = NULL;
    for (int t = 0; t < SEVERAL; t++) {
        double total = NAN;
        klce_set_num_threads(several_threads[t]);
        CHECK(klce_run_totals(call, &total) == KLCE_OK);
        CHECK(memcmp(&total, &sum, sizeof sum) == 0);
    }
    klce_set_num_threads(1);
}

static void test_total(void)
{
    static const ptrdiff_t counts[] = {0, 1, 255, 256, 257, 20000};
    enum { MOST = 20000, CLASSES = 6 };
    double *results = allocate(MOST * sizeof *results);
    void *x = allocate(MOST * CLASSES * sizeof(double));
    for (int dtype = 0; dtype < KLCE_DTYPE_COUNT; dtype++) {
        ptrdiff_t size = (ptrdiff_t)klce_elem_sizes[dtype];
        for (ptrdiff_t i = 0; i < MOST * CLASSES; i++)
            if (dtype == KLCE_DTYPE_f64)
                ((double *)x)[i] = bell();
            else if (dtype == KLCE_DTYPE_f32)
                ((float *)x)[i] = (float)bell();
            else /* some normal numbers of either kind */
                ((uint16_t *)x)[i] = (uint16_t)(0x3c00 + i * 7919 % 512);
        for (int isa = 0; isa < klce_isa_count(); isa++) {
            if (klce_select_isa(klce_isa_at(isa)->name) != 0)
                continue;
            for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
                for (int apart = 1; apart <= 2; apart++) { /* or packed, which has other tasks */
                    klce_call call = {.op = KLCE_OP_logsumexp, .dtype = dtype};
                    call.rows = counts[c];
                    call.n = CLASSES / apart;
                    call.arg[0] = x;
                    call.step[0] = CLASSES * size;
                    call.core[0] = apart * size;
                    check_total(&call, 1, results);
                }
        }
    }
    CHECK(klce_select_isa(NULL) == 0);

    /* With labels and masks, which a batch of rows has to take along. */
    int64_t *labels = allocate(MOST * sizeof *labels), ignored = -100;
    char *mask = allocate(MOST * CLASSES);
    atomic_int labels_met;
    atomic_init(&labels_met, 0);
    for (ptrdiff_t i = 0; i < MOST; i++)
        labels[i] = i % 7 == 6 ? ignored : i % CLASSES;
    for (ptrdiff_t i = 0; i < MOST * CLASSES; i++) {
        ((double *)x)[i] = 1.5 + uniform();
        mask[i] = i % 11 != 5 || i < MOST; /* later rows only */
    }
    klce_call call = {.op = KLCE_OP_nll_probs, .dtype = KLCE_DTYPE_f64, .rows = MOST, .n = CLASSES};
    call.arg[0] = x, call.step[0] = CLASSES * sizeof(double), call.core[0] = sizeof(double);
    call.arg[1] = (char *)labels, call.step[1] = sizeof *labels;
    call.arg[2] = (char *)&ignored;
    call.labels_met = &labels_met;
    call.mask = mask, call.mask_step = CLASSES, call.mask_core = 1;
    check_total(&call, 3, results);
    free(labels);
    free(mask);
    free(x);
    free(results);
}

/* Slabs in one call are what they are in a call each, and so is the sum of their results. */
static void check_slabs(klce_op op, klce_dtype dtype, ptrdiff_t slabs, ptrdiff_t rows, ptrdiff_t n,
                        char *x, char *results)
{
    static double temperature = 2;
    static int64_t normalize = 0;
    ptrdiff_t elem = (ptrdiff_t)klce_elem_sizes[dtype], real = (ptrdiff_t)klce_real_sizes[dtype];
    bool map = op == KLCE_OP_softmax;
    ptrdiff_t slab = n * rows * elem, out = op == KLCE_OP_logsumexp ? 1 : 2,
              bytes = map ? slab : rows * real;
    klce_call call = {.op = op, .dtype = dtype, .rows = rows, .n = n};
    call.arg[0] = x, call.step[0] = elem, call.core[0] = rows * elem;
    call.arg[1] = op == KLCE_OP_entropy_probs ? (char *)&normalize : (char *)&temperature;
    call.arg[out] = results, call.step[out] = map ? elem : real, call.core[out] = rows * elem;
    klce_call all = call;
    all.slabs = slabs;
    all.slab_step[0] = slab, all.slab_step[out] = bytes;
    all.arg[out] = results + slabs * bytes;
    for (int s = 0; s < slabs; s++) {
        CHECK(klce_run(&call) == KLCE_OK);
        call.arg[0] += slab, call.arg[out] += bytes;
    }
    for (int t = 0; t < SEVERAL; t++) {
        klce_set_num_threads(several_threads[t]);
        memset(all.arg[out], 0, (size_t)(slabs * bytes));
        CHECK(klce_run(&all) == KLCE_OK);
        CHECK(memcmp(all.arg[out], results, (size_t)(slabs * bytes)) == 0);
        if (map)
            continue;
        klce_call reduced = all;
        double total = NAN, sum;
        sum = klce_sum(real == 4 ? KLCE_DTYPE_f32 : KLCE_DTYPE_f64, results, slabs * rows, real);
        CHECK(klce_run_totals(&reduced, &total) == KLCE_OK);
        CHECK(memcmp(&total, &sum, sizeof sum) == 0);
    }
    klce_set_num_threads(1);
}

static void test_slabs(void)
{
    static const ptrdiff_t sizes[] = {1, 2, 9, 40, 300};
    enum { MOST = 40 * 37 * 300 };
    char *x = allocate(MOST * sizeof(double)), *results = allocate(2 * MOST * sizeof(double));
    for (int dtype = 0; dtype < KLCE_DTYPE_COUNT; dtype++) {
        for (ptrdiff_t i = 0; i < MOST; i++)
            put(dtype, x, i, bell());
        for (int isa = 0; isa < klce_isa_count(); isa++)
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
                if (klce_select_isa(klce_isa_at(isa)->name) == 0) {
                    check_slabs(KLCE_OP_logsumexp, dtype, 40, 37, sizes[i], x, results);
                    check_slabs(KLCE_OP_softmax, dtype, 40, 37, sizes[i], x, results);
                }
        /* Blocks of many classes in turn, from slab to slab, and from a cache line on. */
        for (int isa = 0; isa < klce_isa_count(); isa++)
            if (klce_select_isa(klce_isa_at(isa)->name) == 0) {
                check_slabs(KLCE_OP_logsumexp, dtype, 10, 128, 299, x, results);
                check_slabs(KLCE_OP_logsumexp, dtype, 1, 1400, 300, x + 16, results);
                check_slabs(KLCE_OP_softmax, dtype, 10, 128, 299, x, results);
                check_slabs(KLCE_OP_softmax, dtype, 5, 200, 300, x, results);
                check_slabs(KLCE_OP_softmax, dtype, 1, 1400, 300, x + 16, results);
            }
        /* Many classes that are taken as they lie, by pieces of which some rows are in two. */
        for (ptrdiff_t i = 0; i < MOST; i++)
            put(dtype, x, i, fabs(bell()) / 100);
        for (int isa = 0; isa < klce_isa_count(); isa++)
            if (klce_select_isa(klce_isa_at(isa)->name) == 0) {
                check_slabs(KLCE_OP_entropy_probs, dtype, 6, 140, 272, x, results);
                check_slabs(KLCE_OP_entropy_probs, dtype, 1, 1120, 272, x + 16, results);
            }
    }
    CHECK(klce_select_isa(NULL) == 0);
    free(x);
    free(results);
}

/* Results that go past the caches, wherever they begin, are those of calls of a few rows, which do
 * not, and nothing is written beside them. */
static void check_past_caches(klce_op op, klce_dtype dtype, ptrdiff_t n, const char *x, char *few,
                              char *all)
{
    enum { ROWS = 7, GUARD = 128 };
    static double temperature = 1;
    static const ptrdiff_t starts[] = {0, 1, 7, 16};
    ptrdiff_t size = (ptrdiff_t)klce_elem_sizes[dtype], bytes = n * size;
    ptrdiff_t rows = ((13 << 20) / bytes / ROWS + 1) * ROWS;
    klce_call call = {.op = op, .dtype = dtype, .rows = ROWS, .n = n};
    call.step[0] = bytes, call.core[0] = size;
    call.arg[1] = (char *)&temperature;
    call.step[2] = bytes, call.core[2] = size;
    for (ptrdiff_t row = 0; row < rows; row += ROWS) {
        call.arg[0] = (char *)x + row * bytes;
        call.arg[2] = few + row * bytes;
        CHECK(klce_run(&call) == KLCE_OK);
    }
    call.rows = rows;
    call.arg[0] = (char *)x;
    for (size_t s = 0; s < sizeof starts / sizeof *starts; s++) {
        char *begin = all + GUARD + starts[s] * size, *end = begin + rows * bytes;
        klce_set_num_threads(1 + (int)s % 2);
        memset(all, 0x5a, (size_t)(end - all) + GUARD);
        call.arg[2] = begin;
        CHECK(klce_run(&call) == KLCE_OK);
        CHECK(memcmp(begin, few, (size_t)(rows * bytes)) == 0);
        for (char *p = all; p < end + GUARD; p = p + 1 == begin ? end : p + 1)
            CHECK(*p == 0x5a);
    }
    klce_set_num_threads(1);
}

static void test_past_caches(void)
{
    static const ptrdiff_t sizes[] = {257, 1000, 1024, 33000};
    enum { ROOM = (13 << 20) + 8 * 8 * 33000 };
    char *x = allocate(ROOM), *few = allocate(ROOM), *all = allocate(ROOM);
    for (int dtype = 0; dtype < KLCE_DTYPE_COUNT; dtype++) {
        for (ptrdiff_t i = 0; i < ROOM / (ptrdiff_t)klce_elem_sizes[dtype]; i++)
            put(dtype, x, i, 4 * bell());
        for (int isa = 0; isa < klce_isa_count(); isa++)
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
                if (klce_select_isa(klce_isa_at(isa)->name) == 0) {
                    check_past_caches(KLCE_OP_softmax, dtype, sizes[i], x, few, all);
                    check_past_caches(KLCE_OP_log_softmax, dtype, sizes[i], x, few, all);
                }
    }
    CHECK(klce_select_isa(NULL) == 0);
    free(x);
    free(few);
    free(all);
}

static void test_dispatch(void)
{
    const klce_isa *best = NULL;
    CHECK(klce_isa_count() > 0 && strcmp(klce_isa_at(0)->name, "baseline") == 0);
    CHECK(klce_isa_at(0)->supported());
    for (int i = 0; i < klce_isa_count(); i++) {
        const klce_isa *isa = klce_isa_at(i), *before = klce_active_isa();
        int status = klce_select_isa(isa->name);
        CHECK(status == (isa->supported() ? 0 : -2));
        CHECK(klce_active_isa() == (isa->supported() ? isa : before));
        best = isa->supported() ? isa : best;
        for (int dtype = 0; dtype < KLCE_DTYPE_COUNT; dtype++)
            for (int op = 0; op < KLCE_OP_COUNT; op++)
                CHECK(isa->kernels[dtype][op]);
    }
    const klce_isa *before = klce_active_isa();
    CHECK(klce_select_isa("none") == -1 && klce_select_isa("") == -1);
    CHECK(klce_active_isa() == before);
    CHECK(klce_select_isa(NULL) == 0 && klce_active_isa() == best);
}

/* ---- Checksums ---- */

static uint64_t hash;

static void add_to_hash(const problem *p, bool special)
{ /* FNV-1a */
    (void)special;
    char *results = run(p, CONTIGUOUS, false);
    for (size_t i = 0; i < output_bytes(p); i++)
        hash = (hash ^ (unsigned char)results[i]) * 0x100000001b3;
    free(results);
}

static void print_checksums(void)
{
    for (int i = 0; i < klce_isa_count(); i++)
        for (klce_op op = 0; op < KLCE_OP_COUNT && klce_isa_at(i)->supported(); op++)
            for (klce_dtype dtype = 0; dtype < KLCE_DTYPE_COUNT; dtype++) {
                CHECK(klce_select_isa(klce_isa_at(i)->name) == 0);
                hash = 0xcbf29ce484222325;
                visit_all(op, dtype, add_to_hash);
                printf("%s %s %s %016llx\n", klce_isa_at(i)->name, klce_op_names[op],
                       klce_dtype_names[dtype], (unsigned long long)hash);
            }
}

int main(int argc, char **argv)
{
    klce_set_num_threads(1);
    sparse = argc > 1;
    if (argc > 1 && strcmp(argv[1], "--checksums") == 0) {
        one_thread = true;
        print_checksums();
        return 0;
    }
    CHECK(argc == 1 || strcmp(argv[1], "--sparse") == 0);
    test_dispatch();
    test_check_labels();
    test_widen();
    test_bad_labels();
    test_sum();
    test_total();
    test_slabs();
    test_past_caches();
    for (klce_op op = 0; op < KLCE_OP_COUNT; op++) {
        bool wanted = argc <= 2;
        for (int k = 2; k < argc; k++)
            wanted |= strcmp(argv[k], klce_op_names[op]) == 0;
        for (klce_dtype dtype = 0; wanted && dtype < KLCE_DTYPE_COUNT; dtype++)
            visit_all(op, dtype, check_problem);
    }
    return 0;
}
