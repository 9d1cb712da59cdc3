/* UDP: port 7 echoes, port 9 swallows and counts. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "agent.h"

atomic_ullong sink_bytes, sink_packets;

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

void start_udp(void) {
    start_thread(echo_thread, NULL);
    start_thread(sink_thread, NULL);
}
