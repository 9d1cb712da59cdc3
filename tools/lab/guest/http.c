/*
 * The guests' service, one thread a connection:
 *
 *   POST /work?spin=N   read the whole body, run N turns of a fixed loop, answer {"bytes":...}
 *   GET  /stat          boot id, uptime, CPUs, memory, requests, bytes, what the sink received
 *   GET  /calibrate     {"spins_per_ms":...}: the median of many short windows, so that a CPU quota does not spoil it
 *   GET  /dirty?kib=N&kib_per_s=M   from now on write M KiB/s of memory over and over within N KiB; 0 ends it
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

static atomic_ullong requests, request_bytes;
static char boot_id[64];

static void answer(int fd, const char *status, const char *body) {
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                     "Connection: close\r\n\r\n%s", status, strlen(body), body);
    for (int done = 0; done < n;) {
        ssize_t w = send(fd, text + done, n - done, MSG_NOSIGNAL);
        if (w <= 0) return;
        done += w;
    }
}

static void answer_stat(int fd) {
    char body[640];
    struct sysinfo info;
    sysinfo(&info);
    struct timespec up;
    clock_gettime(CLOCK_BOOTTIME, &up);
    snprintf(body, sizeof body,
             "{\"boot_id\":\"%s\",\"uptime_s\":%.2f,\"cpus\":%ld,\"memory_bytes\":%llu,\"memory_free_bytes\":%llu,"
             "\"requests\":%llu,\"request_bytes\":%llu,\"sink_bytes\":%llu,\"sink_packets\":%llu}\n",
             boot_id, up.tv_sec + up.tv_nsec / 1e9, sysconf(_SC_NPROCESSORS_ONLN),
             (unsigned long long)info.totalram * info.mem_unit, (unsigned long long)info.freeram * info.mem_unit,
             atomic_load(&requests), atomic_load(&request_bytes), atomic_load(&sink_bytes), atomic_load(&sink_packets));
    answer(fd, "200 OK", body);
}

static void answer_work(int fd, const char *head, unsigned long long bytes) {
    const char *at = strstr(head, "spin=");
    char body[64];
    if (at) spin(strtoull(at + 5, NULL, 10));
    atomic_fetch_add(&requests, 1);
    atomic_fetch_add(&request_bytes, bytes);
    snprintf(body, sizeof body, "{\"bytes\":%llu}\n", bytes);
    answer(fd, "200 OK", body);
}

static void answer_dirty(int fd, const char *head) {
    const char *size = strstr(head, "kib="), *rate = strstr(head, "kib_per_s=");
    write_memory(size ? strtoull(size + 4, NULL, 10) : 0, rate ? strtoull(rate + 10, NULL, 10) : 0);
    answer(fd, "200 OK", "{}\n");
}

/* Read up to the blank line; return the length of the head, and in *extra what came after it. 0 = broken. */
static size_t read_head(int fd, char *head, size_t room, size_t *extra) {
    size_t have = 0;
    while (have < room - 1) {
        ssize_t n = recv(fd, head + have, room - 1 - have, 0);
        if (n <= 0) return 0;
        have += n;
        head[have] = 0;
        char *end = strstr(head, "\r\n\r\n");
        if (end) {
            size_t length = end + 4 - head;
            *extra = have - length;
            *end = 0;
            return length;
        }
    }
    return 0;
}

static void serve(int fd) {
    char head[2048], chunk[16384];
    size_t extra = 0;
    if (!read_head(fd, head, sizeof head, &extra)) return;
    char *length = strcasestr(head, "\r\nContent-Length:");
    unsigned long long want = length ? strtoull(length + 17, NULL, 10) : 0, got = extra;
    while (got < want) {
        ssize_t n = recv(fd, chunk, sizeof chunk, 0);
        if (n <= 0) return;
        got += n;
    }
    if (!strncmp(head, "POST /work", 10)) answer_work(fd, head, got);
    else if (!strncmp(head, "GET /stat", 9)) answer_stat(fd);
    else if (!strncmp(head, "GET /dirty", 10)) answer_dirty(fd, head);
    else if (!strncmp(head, "GET /calibrate", 14)) {
        char body[64];
        snprintf(body, sizeof body, "{\"spins_per_ms\":%.1f}\n", spins_per_ms());
        answer(fd, "200 OK", body);
    } else answer(fd, "404 Not Found", "{}\n");
}

static void *serve_thread(void *arg) {
    int fd = (int)(long)arg;
    struct timeval patience = {10, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    serve(fd);
    shutdown(fd, SHUT_WR);
    close(fd);
    return NULL;
}

static void *http_thread(void *arg) {
    int fd = bound(SOCK_STREAM, 80);
    (void)arg;
    listen(fd, 512);
    for (;;) {
        int peer = accept(fd, NULL, NULL);
        if (peer >= 0) start_thread(serve_thread, (void *)(long)peer);
        else usleep(10000);
    }
}

void start_http(void) {
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, boot_id, sizeof boot_id - 1);
    if (fd >= 0) close(fd);
    if (n > 0) boot_id[strcspn(boot_id, "\n")] = 0;
    start_thread(http_thread, NULL);
}
