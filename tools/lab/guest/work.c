/* CPU time: the unit of work, how fast this guest does it, and a thread that keeps busy. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

static volatile unsigned long long burnt;

/* The unit of work. Volatile, so that no compiler can shorten it. */
void spin(unsigned long long turns) {
    volatile unsigned long long x = 88172645463325252ULL;
    for (unsigned long long i = 0; i < turns; i++) x = x * 6364136223846793005ULL + 1442695040888963407ULL;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of short windows: a CPU quota stalls only a few of them, and a coarse clock flatters only a few. */
double spins_per_ms(void) {
    enum { WINDOWS = 41, TURNS = 200000 };
    double rate[WINDOWS];
    spin(TURNS);
    for (int i = 0; i < WINDOWS; i++) {
        double start = now_s();
        spin(TURNS);
        double took = now_s() - start;
        rate[i] = took > 0 ? TURNS / took / 1000 : 0;
    }
    qsort(rate, WINDOWS, sizeof rate[0], by_size);
    return rate[WINDOWS / 2];
}

/* A low-priority thread that is busy for a share of the time. */
static void *burn_thread(void *arg) {
    long percent = (long)arg;
    struct sched_param lowest = {0};
    sched_setscheduler(0, SCHED_BATCH, &lowest);
    setpriority(PRIO_PROCESS, syscall(SYS_gettid), 15);
    for (;;) {
        double start = now_s();
        while (now_s() - start < percent / 1000.0) { spin(2000); burnt++; }
        if (percent < 100) usleep((100 - percent) * 1000);
    }
}

void start_burning(long percent) {
    start_thread(burn_thread, (void *)percent);
}
