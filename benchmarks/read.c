/* Reads memory and does next to nothing with it: the limit for anything that reads its input once.
 *
 * Compiled by limits.py for the machine it runs on. */
#include <stddef.h>
#include <stdint.h>

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
