/* Reads memory, or copies it, and does next to nothing else: the limits for anything that reads its
 * input once, or reads it once and writes as much.  And counts time in cycles.
 *
 * Compiled by limits.py for the machine it runs on. */
#include <stddef.h>
#include <stdint.h>
#if defined __SSE2__
#include <immintrin.h>
#endif

typedef uint64_t vector __attribute__((vector_size(64), aligned(8), may_alias));

uint64_t read_arrays(const char *const *arrays, int count, ptrdiff_t bytes, int times)
{
    vector total = {0};
    for (int k = 0; k < count * times; k++) {
        const char *data = arrays[k % count];
        vector a = {0}, b = {0}, c = {0}, d = {0}; /* four chains: none waits for another's sum */
        for (ptrdiff_t i = 0; i + 256 <= bytes; i += 256) {
            a += *(const vector *)(data + i);
            b += *(const vector *)(data + i + 64);
            c += *(const vector *)(data + i + 128);
            d += *(const vector *)(data + i + 192);
        }
        total += a + b + c + d;
        __asm__ volatile("" ::: "memory"); /* each time anew */
    }
    uint64_t result = 0;
    for (int k = 0; k < 8; k++)
        result += total[k];
    return result;
}

/* Writes a line past the caches, so that it need not be read first. `to` is aligned to 64 bytes. */
static inline void stream(char *to, const char *from)
{
#if defined __AVX512F__
    _mm512_stream_si512((__m512i *)to, _mm512_loadu_si512(from));
#elif defined __AVX__
    for (int k = 0; k < 64; k += 32)
        _mm256_stream_si256((__m256i *)(to + k), _mm256_loadu_si256((const __m256i *)(from + k)));
#elif defined __SSE2__
    for (int k = 0; k < 64; k += 16)
        _mm_stream_si128((__m128i *)(to + k), _mm_loadu_si128((const __m128i *)(from + k)));
#elif defined __clang__
    __builtin_nontemporal_store(*(const vector *)from, (vector *)to);
#else /* no such store is known here: the limit is that of a plain one */
    *(vector *)to = *(const vector *)from;
#endif
}

void copy_streaming(const char *from, char *to, ptrdiff_t bytes, int times)
{
    for (int k = 0; k < times; k++) {
        for (ptrdiff_t i = 0; i + 64 <= bytes; i += 64)
            stream(to + i, from + i);
#if defined __SSE2__
        _mm_sfence();
#endif
        __asm__ volatile("" ::: "memory");
    }
}

void copy_cached(const char *from, char *to, ptrdiff_t bytes, int times)
{
    for (int k = 0; k < times; k++) {
        for (ptrdiff_t i = 0; i + 64 <= bytes; i += 64)
            *(vector *)(to + i) = *(const vector *)(from + i);
        __asm__ volatile("" ::: "memory");
    }
}

/* A chain of steps that take 2 cycles each: a shift, and an exclusive or that waits for it. */
uint64_t chain(uint64_t steps)
{
    uint64_t x = ~steps;
    for (uint64_t k = 0; k < steps; k++) {
        x ^= x >> 1;
        __asm__ volatile("" : "+r"(x)); /* one by one */
    }
    return x;
}
