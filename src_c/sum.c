/* The sum of results, for a mean or a total:
 * by fixed chunks with compensation, whoever adds them up. */
#include "cpus.h"
#include "float_environment.h"
#include "klce.h"
#include "pool.h"

enum {
    CHUNK = 256,        /* values, summed in eight chains */
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
        ptrdiff_t i = 0;                                                                           \
        if (step == sizeof(real))                                                                  \
            for (; i + 8 <= count; i += 8)                                                         \
                for (int k = 0; k < 8; k++)                                                        \
                    chain[k] += ((const real *)values)[i + k];                                     \
        for (; i < count; i++)                                                                     \
            chain[i % 8] += *(const real *)(values + i * step);                                    \
        return ((chain[0] + chain[1]) + (chain[2] + chain[3])) +                                   \
               ((chain[4] + chain[5]) + (chain[6] + chain[7]));                                    \
    }
SUM_OF_CHUNK(float)
SUM_OF_CHUNK(double)
#undef SUM_OF_CHUNK

static void run_task(void *context, ptrdiff_t index)
{
    const job *j = context;
    klce_environment saved = klce_enter();
    for (ptrdiff_t i = index * TASK; i < (index + 1) * TASK && i * CHUNK < j->count; i++) {
        const char *values = j->values + i * CHUNK * j->step;
        ptrdiff_t left = j->count - i * CHUNK, count = left < CHUNK ? left : CHUNK;
        j->sums[i] = j->dtype == KLCE_DTYPE_f32 ? sum_chunk_float(values, count, j->step)
                                                : sum_chunk_double(values, count, j->step);
    }
    klce_leave(saved);
}

/* By Neumaier's compensated sum of the chunks:
 * the error stays below a few units of a float64 for any count. */
double klce_sum(klce_dtype dtype, const char *values, ptrdiff_t count, ptrdiff_t step)
{
    double sums[ROUND], sum = 0, lost = 0;
    int threads = count < THRESHOLD ? 1 : klce_get_num_threads();
    for (ptrdiff_t low = 0; low < count; low += ROUND * CHUNK) {
        ptrdiff_t left = count - low, here = left < ROUND * CHUNK ? left : ROUND * CHUNK;
        ptrdiff_t chunks = (here + CHUNK - 1) / CHUNK;
        job j = {dtype, values + low * step, here, step, sums};
        klce_parallel_for((chunks + TASK - 1) / TASK, threads, run_task, &j);
        klce_environment saved = klce_enter();
        for (ptrdiff_t i = 0; i < chunks; i++) {
            double next = sum + sums[i], big = sum, small = sums[i];
            if ((small < 0 ? -small : small) > (big < 0 ? -big : big))
                big = sums[i], small = sum;
            lost += (big - next) + small;
            sum = next;
        }
        klce_leave(saved);
    }
    /* An infinite or nan sum has no error to give back. */
    return lost == lost ? sum + lost : sum;
}
