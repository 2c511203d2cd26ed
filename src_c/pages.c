/* madvise() is hidden by -std=c11. */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE
#endif

#include "pages.h"

#if defined(__linux__)
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_FREE
#define MADV_FREE 8 /* of Linux 4.5; others answer that they do not know it */
#endif

enum { HUGE_PAGE = 1 << 21, KEPT = 2 };
static const size_t MOST_KEPT = (size_t)1 << 30;

/* Lies on a page of its own, in front of the memory. */
typedef struct {
    size_t room;
} header;

/* The newest first. Whoever exchanges a place for NULL owns what was there. */
static _Atomic(void *) kept[KEPT];

static size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static header *header_of(const void *memory) { return (header *)((char *)memory - page_size()); }

static void unmap(void *memory)
{
    if (memory)
        munmap(header_of(memory), page_size() + header_of(memory)->room);
}

static void *map(size_t room)
{
    size_t page = page_size(), whole = page + HUGE_PAGE + room;
    char *start = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    size_t skipped = HUGE_PAGE - ((uintptr_t)start + page) % HUGE_PAGE; /* one page or more */
    char *memory = start + page + skipped;
    munmap(start, skipped);
    if (skipped < HUGE_PAGE)
        munmap(memory + room, HUGE_PAGE - skipped);
    madvise(memory, room, MADV_HUGEPAGE);
    header_of(memory)->room = room;
    return memory;
}

size_t klce_pages_room(const void *memory) { return header_of(memory)->room; }

void *klce_take_pages(size_t bytes)
{
    if (bytes > PTRDIFF_MAX - 2 * HUGE_PAGE - page_size())
        return NULL;
    size_t room = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    for (int i = 0; i < KEPT; i++) {
        void *memory = atomic_exchange(&kept[i], NULL), *none = NULL;
        if (!memory)
            continue;
        size_t has = klce_pages_room(memory);
        if (room <= has && has / 2 <= room)
            return memory;
        if (!atomic_compare_exchange_strong(&kept[i], &none, memory))
            unmap(memory); /* another thread has given back its own meanwhile */
    }
    void *memory = map(room);
    if (memory)
        return memory;
    for (int i = 0; i < KEPT; i++)
        unmap(atomic_exchange(&kept[i], NULL));
    return map(room);
}

void klce_give_pages(void *memory)
{
    if (!memory)
        return;
    size_t room = klce_pages_room(memory);
    if (room > MOST_KEPT || madvise(memory, room, MADV_FREE) != 0) {
        unmap(memory);
        return;
    }
    for (int i = 0; i < KEPT && memory; i++)
        memory = atomic_exchange(&kept[i], memory);
    unmap(memory); /* the oldest, where all places were taken */
}

#else

void *klce_take_pages(size_t bytes)
{
    (void)bytes;
    return NULL;
}

void klce_give_pages(void *memory) { (void)memory; }

size_t klce_pages_room(const void *memory)
{
    (void)memory;
    return 0;
}

#endif
