/*
 * The only program of the lab's guests: a service whose cost is known, and a counter of what arrived.
 *
 *   POST /work?spin=N   read the whole body, run N turns of a fixed loop, answer {"bytes":...}
 *   GET  /stat          boot id, uptime, CPUs, memory, requests, bytes, what the sink received
 *   GET  /calibrate     {"spins_per_ms":...}: the median of many short windows, so that a CPU quota does not spoil it
 *   GET  /dirty?kib=N&kib_per_s=M   from now on write M KiB/s of memory over and over within N KiB; 0 ends it
 *   UDP  :7 echo        UDP :9 sink (counts bytes and datagrams)
 *   virtio port org.qemu.guest_agent.0: guest-sync, guest-sync-delimited, guest-ping, guest-get-vcpus, guest-set-vcpus
 *
 * `lab.burn=PERCENT` on the kernel command line keeps a low-priority thread busy for that share of the time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_ullong requests, request_bytes, sink_bytes, sink_packets;
static atomic_ullong dirty_kib, dirty_kib_per_s, dirty_running;
static char boot_id[64];
static volatile unsigned long long burnt;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* The unit of work. Volatile, so that no compiler can shorten it. */
static void spin(unsigned long long turns) {
    volatile unsigned long long x = 88172645463325252ULL;
    for (unsigned long long i = 0; i < turns; i++) x = x * 6364136223846793005ULL + 1442695040888963407ULL;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of short windows: a CPU quota stalls only a few of them, and a coarse clock flatters only a few. */
static double calibrate(void) {
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

static long file_number(const char *path) {
    char text[64] = "";
    int fd = open(path, O_RDONLY);
    if (fd < 0) return -1;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? atol(text) : -1;
}

static void start_thread(void *(*body)(void *), void *arg) {
    pthread_t id;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 * 1024);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&id, &attr, body, arg) != 0 && body != NULL) perror("thread");
    pthread_attr_destroy(&attr);
}

/* ---- HTTP ------------------------------------------------------------------------------------------- */

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

/* Writes one word in each page, round and round, so that a migration has something to copy again. */
/* Writes until it is told to end; the memory is given back then. */
static void write_over_and_over(void) {
    enum { PAGE = 4096, MOST_KIB = 96 * 1024 };
    volatile char *room = mmap(NULL, (size_t)MOST_KIB * 1024, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    unsigned long long at = 0, written = 0, rate = 0;
    double since = 0;
    if ((void *)room == MAP_FAILED) return;
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

static void answer_dirty(int fd, const char *head) {
    const char *size = strstr(head, "kib="), *rate = strstr(head, "kib_per_s=");
    atomic_store(&dirty_kib, size ? strtoull(size + 4, NULL, 10) : 0);
    atomic_store(&dirty_kib_per_s, rate ? strtoull(rate + 10, NULL, 10) : 0);
    if (atomic_load(&dirty_kib) && !atomic_exchange(&dirty_running, 1)) start_thread(dirty_thread, NULL);
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
        snprintf(body, sizeof body, "{\"spins_per_ms\":%.1f}\n", calibrate());
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

static int bound(int type, int port) {
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0) perror("bind");
    return fd;
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

/* ---- UDP -------------------------------------------------------------------------------------------- */

static void *echo_thread(void *arg) {
    char text[2048];
    int fd = bound(SOCK_DGRAM, 7);
    (void)arg;
    for (;;) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, text, sizeof text, 0, (struct sockaddr *)&from, &size);
        if (n >= 0) sendto(fd, text, n, 0, (struct sockaddr *)&from, size);
    }
}

/* MSG_TRUNC gives the true length without copying; batches keep the number of system calls low. */
static void *sink_thread(void *arg) {
    enum { BATCH = 64 };
    static char room[BATCH][16];
    struct iovec vec[BATCH];
    struct mmsghdr batch[BATCH];
    int fd = bound(SOCK_DGRAM, 9);
    (void)arg;
    memset(batch, 0, sizeof batch);
    for (int i = 0; i < BATCH; i++) {
        vec[i] = (struct iovec){room[i], sizeof room[i]};
        batch[i].msg_hdr.msg_iov = &vec[i];
        batch[i].msg_hdr.msg_iovlen = 1;
    }
    for (;;) {
        int n = recvmmsg(fd, batch, BATCH, MSG_WAITFORONE | MSG_TRUNC, NULL);
        for (int i = 0; i < n; i++) atomic_fetch_add(&sink_bytes, batch[i].msg_len);
        if (n > 0) atomic_fetch_add(&sink_packets, n);
    }
}

/* ---- guest agent ------------------------------------------------------------------------------------ */

static void say(int fd, const char *text) {
    if (write(fd, text, strlen(text)) < 0) perror("guest agent");
}

static void list_vcpus(int fd) {
    char text[1024] = "{\"return\":[", path[96], one[96];
    for (int cpu = 0; cpu < 8; cpu++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d", cpu);
        if (access(path, F_OK) != 0) continue;
        strcat(path, "/online");
        long online = cpu == 0 ? 1 : file_number(path);
        snprintf(one, sizeof one, "%s{\"logical-id\":%d,\"online\":%s,\"can-offline\":%s}", cpu ? "," : "", cpu,
                 online ? "true" : "false", cpu ? "true" : "false");
        strcat(text, one);
    }
    strcat(text, "]}\n");
    say(fd, text);
}

static void set_vcpus(int fd, const char *line) {
    int count = 0;
    char text[64], path[96];
    for (const char *object = strstr(line, "["); object && (object = strchr(object, '{'));) {
        char one[160] = "";
        const char *end = strchr(object, '}');
        if (!end) break;
        snprintf(one, sizeof one, "%.*s", (int)(end - object < 159 ? end - object : 159), object);
        char *id = strstr(one, "logical-id"), *on = strstr(one, "online");
        if (id && on) {
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%ld/online", strtol(strchr(id, ':') + 1, NULL, 10));
            int cpu = open(path, O_WRONLY);
            if (cpu >= 0) {
                if (write(cpu, strstr(on, "true") ? "1" : "0", 1) == 1) count++;
                close(cpu);
            } else count++; /* the first CPU has no switch */
        }
        object = end;
    }
    snprintf(text, sizeof text, "{\"return\":%d}\n", count);
    say(fd, text);
}

static void obey(int fd, const char *line) {
    char text[96];
    const char *id = strstr(line, "\"id\"");
    if (strstr(line, "guest-sync")) {
        if (strstr(line, "guest-sync-delimited")) say(fd, "\xff");
        snprintf(text, sizeof text, "{\"return\":%lld}\n", id ? strtoll(strchr(id, ':') + 1, NULL, 10) : 0);
        say(fd, text);
    } else if (strstr(line, "guest-get-vcpus")) list_vcpus(fd);
    else if (strstr(line, "guest-set-vcpus")) set_vcpus(fd, line);
    else if (strstr(line, "guest-ping")) say(fd, "{\"return\":{}}\n");
    else say(fd, "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"not known here\"}}\n");
}

static void *guest_agent_thread(void *arg) {
    char line[4096];
    size_t have = 0;
    int fd = open("/dev/vport-qga", O_RDWR);
    (void)arg;
    if (fd < 0) return NULL;
    for (;;) {
        char c;
        ssize_t n = read(fd, &c, 1);
        if (n <= 0) { usleep(200000); continue; }
        if (c != '\n' && have < sizeof line - 1) { line[have++] = c; continue; }
        line[have] = 0;
        if (have) obey(fd, line);
        have = 0;
    }
}

/* ---- burning ---------------------------------------------------------------------------------------- */

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

static long command_line_number(const char *key) {
    static char text[2048];
    int fd = open("/proc/cmdline", O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    char *at = strstr(text, key);
    return at ? atol(at + strlen(key)) : 0;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, boot_id, sizeof boot_id - 1);
    if (n > 0) boot_id[strcspn(boot_id, "\n")] = 0;
    start_thread(echo_thread, NULL);
    start_thread(sink_thread, NULL);
    start_thread(guest_agent_thread, NULL);
    start_thread(http_thread, NULL);
    long percent = command_line_number("lab.burn=");
    if (percent > 0) start_thread(burn_thread, (void *)(percent > 100 ? 100L : percent));
    for (;;) pause();
}
