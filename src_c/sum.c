/* The sum of results, for a mean or a total:
 * by fixed chunks with compensation, whoever adds them up. */
#include <math.h>

#include "cpus.h"
#include "float_environment.h"
#include "klce.h"
#include "pool.h"
#include "sum.h"

enum {
    CHUNK = KLCE_SUM_CHUNK,
    TASK = 32,          /* chunks that a thread takes */
    ROUND = 1024,       /* chunks whose sums wait on the stack */
    THRESHOLD = 1 << 15 /* values below which a second thread does not pay */
};

typedef struct {
    klce_dtype dtype;
    const char *values;
    ptrdiff_t count, step;
    double *sums; /* of the chunks */
} job;

#define SUM_OF_CHUNK(real)                                                                         \
    static double sum_chunk_##real(const char *values, ptrdiff_t count, ptrdiff_t step)            \
    {                                                                                              \
        double chain[8] = {0};                                                                     \
        for (ptrdiff_t i = 0; i < count; i++)                                                      \
            chain[i % 8] += *(const real *)(values + i * step);                                    \
        return ((chain[0] + chain[1]) + (chain[2] + chain[3])) +                                   \
               ((chain[4] + chain[5]) + (chain[6] + chain[7]));                                    \
    }
SUM_OF_CHUNK(float)
SUM_OF_CHUNK(double)
#undef SUM_OF_CHUNK

void klce_sum_chunks(klce_dtype dtype, const char *values, ptrdiff_t count, ptrdiff_t step,
                     double *sums)
{
    ptrdiff_t i = 0;
    if (step == (ptrdiff_t)klce_real_sizes[dtype]) {
        i = count / CHUNK;
        klce_active_isa()->sum_chunks[dtype](values, i, sums);
    }
    for (; i * CHUNK < count; i++) {
        const char *own = values + i * CHUNK * step;
        ptrdiff_t left = count - i * CHUNK, here = left < CHUNK ? left : CHUNK;
        sums[i] = dtype == KLCE_DTYPE_f32 ? sum_chunk_float(own, here, step)
                                          : sum_chunk_double(own, here, step);
    }
}

static void run_task(void *context, ptrdiff_t index)
{
    const job *j = context;
    ptrdiff_t low = index * TASK * CHUNK, left = j->count - low;
    klce_environment saved = klce_enter();
    klce_sum_chunks(j->dtype, j->values + low * j->step, left < TASK * CHUNK ? left : TASK * CHUNK,
                    j->step, j->sums + index * TASK);
    klce_leave(saved);
}

/* Neumaier's compensated sum, whose own error does not grow with the count. */
typedef struct {
    double sum, lost;
} total;

static void add(total *t, const double *sums, ptrdiff_t count)
{
    klce_environment saved = klce_enter();
    for (ptrdiff_t i = 0; i < count; i++) {
        double next = t->sum + sums[i], big = t->sum, small = sums[i];
        if ((small < 0 ? -small : small) > (big < 0 ? -big : big))
            big = sums[i], small = t->sum;
        t->lost += (big - next) + small;
        t->sum = next;
    }
    klce_leave(saved);
}

/* An infinite or nan sum has no error to give back. */
static double value_of(const total *t)
{
    klce_environment saved = klce_enter();
    double value = t->lost == t->lost ? t->sum + t->lost : t->sum;
    klce_leave(saved);
    return value;
}

double klce_sum(klce_dtype dtype, const char *values, ptrdiff_t count, ptrdiff_t step)
{
    double sums[ROUND];
    total all = {0};
    int threads = count < THRESHOLD ? 1 : klce_get_num_threads();
    for (ptrdiff_t low = 0; low < count; low += ROUND * CHUNK) {
        ptrdiff_t left = count - low, here = left < ROUND * CHUNK ? left : ROUND * CHUNK;
        ptrdiff_t chunks = (here + CHUNK - 1) / CHUNK;
        job j = {dtype, values + low * step, here, step, sums};
        klce_parallel_for((chunks + TASK - 1) / TASK, threads, run_task, &j);
        add(&all, sums, chunks);
    }
    return value_of(&all);
}

double klce_mean(klce_dtype dtype, double total, double unit, double count)
{
    klce_environment saved = klce_enter();
    double mean = count != 0 ? total / unit / count : NAN;
    if (klce_real_sizes[dtype] == sizeof(float))
        mean = (float)mean;
    klce_leave(saved);
    return mean;
}

double klce_total_of_chunks(const double *sums, ptrdiff_t count)
{
    total all = {0};
    add(&all, sums, count);
    return value_of(&all);
}
