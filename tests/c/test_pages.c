/* Tests of the memory of large results, src_c/pages.c. Built with the core. */
#include "check.h"
#include "pages.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
enum { MIB = 1 << 20 };

static unsigned char *taken(size_t bytes)
{
    unsigned char *memory = klce_take_pages(bytes);
    CHECK(memory && (uintptr_t)memory % (2 * MIB) == 0);
    CHECK(klce_pages_room(memory) >= bytes);
    memory[0] = memory[bytes - 1] = 1;
    return memory;
}

static void test_what_goes_is_taken_again(void)
{
    unsigned char *first = taken(40 * MIB + 1), *second = taken(40 * MIB + 1);
    CHECK(first != second);
    klce_give_pages(first);
    klce_give_pages(second);
    unsigned char *next = taken(41 * MIB);
    CHECK(next == second); /* the newest first */
    CHECK(taken(30 * MIB) == first);
    unsigned char *third = taken(40 * MIB);
    CHECK(third != first && third != second);
    klce_give_pages(third); /* of three the two last are kept */
    klce_give_pages(second);
    klce_give_pages(first);
    CHECK(taken(40 * MIB) == first && taken(40 * MIB) == second);
    klce_give_pages(first);
    klce_give_pages(second);
}

static void test_a_free_place_is_used_first(void)
{
    unsigned char *small = taken(8 * MIB), *large = taken(80 * MIB);
    klce_give_pages(large);
    klce_give_pages(small);
    CHECK(taken(8 * MIB) == small);
    unsigned char *between = taken(20 * MIB); /* so that no new mapping lies where large is */
    klce_give_pages(small);
    CHECK(taken(80 * MIB) == large);
    klce_give_pages(between);
    klce_give_pages(large);
    klce_give_pages(NULL);
}

static void test_other_sizes_get_their_own(void)
{
    unsigned char *small = taken(4 * MIB), *large = taken(64 * MIB);
    klce_give_pages(small);
    klce_give_pages(large);
    unsigned char *middle = taken(16 * MIB); /* more than one has, less than half of the other */
    CHECK(middle != small && middle != large);
    CHECK(klce_pages_room(middle) == 16 * MIB);
    klce_give_pages(middle);
    CHECK(!klce_take_pages(SIZE_MAX) && !klce_take_pages(SIZE_MAX / 2 - MIB));
}

/* Each writes its own mark over what it has, and finds it there. */
static void *take_and_give(void *mark)
{
    for (int round = 0; round < 300; round++) {
        size_t bytes = (size_t)(round % 3 + 1) * MIB;
        unsigned char *memory = taken(bytes), own = *(unsigned char *)mark;
        memset(memory, own, bytes);
        for (size_t i = 0; i < bytes; i += 4096)
            CHECK(memory[i] == own);
        klce_give_pages(memory);
    }
    return NULL;
}

static void test_threads(void)
{
    enum { THREADS = 4 };
    pthread_t thread[THREADS];
    unsigned char mark[THREADS] = {1, 2, 3, 4};
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, take_and_give, &mark[i]) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
}

int main(void)
{
    test_what_goes_is_taken_again();
    test_a_free_place_is_used_first();
    test_other_sizes_get_their_own();
    test_threads();
    puts("pages: ok");
}
#else
int main(void) { CHECK(!klce_take_pages(1)); }
#endif
