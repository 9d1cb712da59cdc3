/*
 * The only program of the lab's guests: a service whose cost is known, and a counter of what arrived.
 *
 *   http.c          POST /work, GET /stat, GET /calibrate, GET /dirty
 *   udp.c           :7 echo, :9 sink (counts bytes and datagrams)
 *   guest_agent.c   the QEMU guest agent's protocol on the virtio port org.qemu.guest_agent.0
 *   work.c          the unit of work, its speed, and `lab.burn=PERCENT` of the kernel command line
 *   dirty.c         writing memory over and over
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

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
    start_udp();
    start_guest_agent();
    start_http();
    long percent = command_line_number("lab.burn=");
    if (percent > 0) start_burning(percent > 100 ? 100 : percent);
    for (;;) pause();
}
