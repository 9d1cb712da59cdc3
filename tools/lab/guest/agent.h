/* What the parts of the guests' agent offer each other. */
#ifndef AGENT_H
#define AGENT_H

#include <stdatomic.h>

/* base.c */
double now_s(void);
void start_thread(void *(*body)(void *), void *arg);
int bound(int type, int port);

/* work.c */
void spin(unsigned long long turns);
double spins_per_ms(void);
void start_burning(long percent);

/* dirty.c */
void write_memory(unsigned long long kib, unsigned long long kib_per_s);

/* http.c */
void start_http(void);

/* udp.c */
extern atomic_ullong sink_bytes, sink_packets;
void start_udp(void);

/* guest_agent.c */
void start_guest_agent(void);

#endif
