/*
 * The QEMU guest agent's protocol on its virtio port, as far as libvirt needs it here: guest-sync,
 * guest-sync-delimited, guest-ping, guest-get-vcpus, guest-set-vcpus.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

static long file_number(const char *path) {
    char text[64] = "";
    int fd = open(path, O_RDONLY);
    if (fd < 0) return -1;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? atol(text) : -1;
}

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

void start_guest_agent(void) {
    start_thread(guest_agent_thread, NULL);
}
