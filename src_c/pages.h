/* Memory of large results: that of one that goes is kept for the next.
 *
 * The system clears a page when it is touched first, which takes longer than most maps compute.
 * What is kept stays the process's own, and counts as such, but the system may take it back when it
 * is short (MADV_FREE); it is two results of up to 1 GiB. */
#ifndef KLCE_PAGES_H
#define KLCE_PAGES_H

#include <stddef.h>
#include <stdint.h>

#if defined(__linux__)
/* Bytes of a large result, at least: glibc's malloc of 64 bits keeps shorter ones itself. */
#define KLCE_PAGES_LEAST ((size_t)1 << 25)
#else
#define KLCE_PAGES_LEAST SIZE_MAX /* none is: what is kept could not be taken back */
#endif

/* Memory, uncleared, from a boundary of 2 MiB on; NULL where there is none. */
void *klce_take_pages(size_t bytes);

/* Gives it back, unless it is NULL; from any thread. */
void klce_give_pages(void *memory);

/* How many bytes there are, at least those that were asked for. */
size_t klce_pages_room(const void *memory);

#endif
