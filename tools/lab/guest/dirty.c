/* Writing memory: one word in each page, round and round, so that a migration has something to copy again. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "agent.h"

static atomic_ullong dirty_kib, dirty_kib_per_s, dirty_running;

/* Until it is told to end; the memory is given back then. */
static void write_over_and_over(void) {
    enum { PAGE = 4096, MOST_KIB = 96 * 1024 };
    volatile char *room = mmap(NULL, (size_t)MOST_KIB * 1024, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    unsigned long long at = 0, written = 0, rate = 0;
    double since = 0;
    if ((void *)room == MAP_FAILED) {
        atomic_store(&dirty_kib, 0); /* or its thread would ask again without end */
        return;
    }
    for (;;) {
        unsigned long long pages = atomic_load(&dirty_kib) / 4, now_rate = atomic_load(&dirty_kib_per_s);
        usleep(10000);
        if (pages > MOST_KIB / 4) pages = MOST_KIB / 4;
        if (pages == 0) break; /* an idle guest must not be woken for nothing */
        if (now_rate != rate) { rate = now_rate; written = 0; since = now_s(); continue; }
        for (unsigned long long due = (now_s() - since) * rate / 4; written < due; written++, at++) room[at % pages * PAGE]++;
    }
    munmap((void *)room, (size_t)MOST_KIB * 1024);
}

/* Whoever asks while it is ending finds it running and starts no other: so it looks once more when it has ended. */
static void *dirty_thread(void *arg) {
    (void)arg;
    do {
        write_over_and_over();
        atomic_store(&dirty_running, 0);
    } while (atomic_load(&dirty_kib) && !atomic_exchange(&dirty_running, 1));
    return NULL;
}

/* From now on `kib_per_s` within `kib`; 0 `kib` ends it. */
void write_memory(unsigned long long kib, unsigned long long kib_per_s) {
    atomic_store(&dirty_kib, kib);
    atomic_store(&dirty_kib_per_s, kib_per_s);
    if (kib && !atomic_exchange(&dirty_running, 1)) start_thread(dirty_thread, NULL);
}
