/* Receivers of HL7 version 2: every message that comes whole over MLLP is acknowledged with AA, at once or one by one.
 *
 * One thread, epoll; a message is scanned as it comes and never kept, so that one of 100 MB costs no memory.
 *
 *     hl7_receiver [--port P]... [--delay-ms D] [--fault wrong_id|not_accepted|closed|silent|twice] [--fault-every N]
 *                  [--tls BOTH.pem]
 *
 * A listener for each --port (0, and without one: any free port).  --delay-ms: a serial interface engine, which works off
 * the messages of all its connections one after the other, each for so long.  --fault: what every Nth message gets
 * instead of its acknowledgement, to see that whoever waits for it notices.  --tls: the certificate and key of TLS 1.3.
 * The first line on standard output is {"ports": [...]}; each line on standard input is answered with the counters; the
 * end of standard input ends it.  Leaves out what a message says, but for MSH-10.
 * Source: HL7 version 2.5.1, chapters 2.9.2 and 2.15.8 (MSA); "Transport Specification: MLLP, Release 1".
 */
#define _GNU_SOURCE
#include "hl7_tls.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { READ_ROOM = 1 << 18, HEAD_ROOM = 512, ID_ROOM = 64, DESCRIPTORS = 1 << 14, MAX_LISTENERS = 16, WAITING = 1 << 12 };
enum stage { BETWEEN, INSIDE, AT_END };
enum fault { NONE, WRONG_ID, NOT_ACCEPTED, CLOSED, SILENT, TWICE, FAULTS };
static const char *const fault_names[FAULTS] = {"none", "wrong_id", "not_accepted", "closed", "silent", "twice"};

struct peer {
    int fd;
    SSL *ssl; /* NULL: plain */
    unsigned listener, life; /* `life` tells this connection from the next one that gets the same descriptor */
    enum stage stage;
    size_t head_used, bytes;
    char head[HEAD_ROOM];
};

struct waiting { /* a message whose turn has not come */
    int fd;
    unsigned life;
    char id[ID_ROOM];
};

static struct {
    uint64_t connections, open, messages[MAX_LISTENERS], bytes, junk, faults, errors;
} counted;
static const char *first_error = "";
static struct peer *peers[DESCRIPTORS];
static struct waiting queue[WAITING];
static unsigned queue_from, queue_size, lives;
static int poller, alarm_fd, listener[MAX_LISTENERS], listeners;
static enum fault fault;
static uint64_t fault_every = 1, heard;
static double delay_ms;
static SSL_CTX *context;

static void fail(const char *what) {
    fprintf(stderr, "hl7_receiver: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

static void hang_up(struct peer *peer) {
    counted.open--;
    SSL_free(peer->ssl);
    peer->ssl = NULL;
    close(peer->fd);
    peer->fd = -1;
}

static bool refuse(const char *why) {
    if (!counted.errors++) first_error = why;
    return false;
}

/* ---- acknowledging ---- */

static bool send_ack(struct peer *peer, const char *code, const char *id) {
    char ack[HEAD_ROOM];
    int size = snprintf(ack, sizeof ack,
                        "\x0bMSH|^~\\&|RECEIVER|BENCH|BENCH|BENCH|20310304050607||ACK^R01^ACK|R%s|P|2.5.1\rMSA|%s|%s\r\x1c\r",
                        id, code, id);
    ssize_t sent = line_write(peer->fd, peer->ssl, ack, (size_t)size);
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) return false;
    return sent == size ? true : refuse("an acknowledgement was not taken at once");
}

/* Return whether the connection goes on. */
static bool acknowledge(struct peer *peer, const char *id) {
    counted.messages[peer->listener]++;
    if (!fault || ++heard % fault_every) return send_ack(peer, "AA", id);
    counted.faults++;
    switch (fault) {
    case WRONG_ID: return send_ack(peer, "AA", "1");
    case NOT_ACCEPTED: return send_ack(peer, "AE", id);
    case TWICE: return send_ack(peer, "AA", id) && send_ack(peer, "AA", id);
    case SILENT: return true;
    default: return false;
    }
}

static void start_work(void) {
    long delay_ns = (long)(delay_ms * 1e6);
    struct itimerspec in = {.it_value = {.tv_sec = delay_ns / 1000000000, .tv_nsec = delay_ns % 1000000000}};
    if (timerfd_settime(alarm_fd, 0, &in, NULL) < 0) fail("timerfd_settime");
}

static void on_alarm(void) {
    uint64_t rings;
    if (read(alarm_fd, &rings, sizeof rings) < 0 || !queue_size) return;
    struct waiting *first = &queue[queue_from];
    struct peer *peer = peers[first->fd];
    queue_from = (queue_from + 1) % WAITING, queue_size--;
    if (peer->fd == first->fd && peer->life == first->life && !acknowledge(peer, first->id)) hang_up(peer);
    if (queue_size) start_work();
}

static bool wait_for_turn(struct peer *peer, const char *id) {
    if (queue_size == WAITING) return refuse("too many messages wait");
    struct waiting *last = &queue[(queue_from + queue_size++) % WAITING];
    last->fd = peer->fd, last->life = peer->life;
    memcpy(last->id, id, ID_ROOM);
    if (queue_size == 1) start_work();
    return true;
}

/* ---- messages ---- */

/* MSH-10: MSH-1 is the separator itself, so nine of them stand before it. */
static bool on_message(struct peer *peer) {
    char id[ID_ROOM] = "";
    const char *at = peer->head, *end = memchr(peer->head, '\r', peer->head_used);
    if (peer->head_used < 4 || memcmp(at, "MSH", 3) || !end) return refuse("a message without MSH");
    for (int field = 0; field < 9 && at; field++) {
        at = memchr(at, peer->head[3], (size_t)(end - at));
        if (at) at++;
    }
    const char *after = at ? memchr(at, peer->head[3], (size_t)(end - at)) : NULL;
    if (!after || after == at || after - at >= ID_ROOM) return refuse("a message without MSH-10");
    memcpy(id, at, (size_t)(after - at));
    counted.bytes += peer->bytes;
    return delay_ms > 0 ? wait_for_turn(peer, id) : acknowledge(peer, id);
}

static void begin_message(struct peer *peer) {
    peer->stage = INSIDE;
    peer->head_used = peer->bytes = 0;
}

/* Take what belongs to the message, up to the byte after 1C. */
static size_t take_inside(struct peer *peer, const char *at, size_t size) {
    const char *end = memchr(at, 0x1c, size);
    size_t take = end ? (size_t)(end - at) : size;
    size_t head = HEAD_ROOM - peer->head_used < take ? HEAD_ROOM - peer->head_used : take;
    memcpy(peer->head + peer->head_used, at, head);
    peer->head_used += head;
    peer->bytes += take;
    if (end) peer->stage = AT_END;
    return take + (end ? 1 : 0);
}

static bool consume(struct peer *peer, const char *at, size_t size) {
    for (size_t take; size > 0; at += take, size -= take) {
        take = 1;
        if (peer->stage == INSIDE) take = take_inside(peer, at, size);
        else if (peer->stage == AT_END) {
            if (*at != '\r') return refuse("1C within a message");
            peer->stage = BETWEEN;
            if (!on_message(peer)) return false;
        } else if (*at == 0x0b) begin_message(peer);
        else counted.junk++;
    }
    return true;
}

static void on_peer(struct peer *peer) {
    static char buffer[READ_ROOM];
    if (peer->fd < 0) return;
    do {
        ssize_t got = line_read(peer->fd, peer->ssl, buffer, sizeof buffer);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0 || !consume(peer, buffer, (size_t)got)) return hang_up(peer);
    } while (peer->ssl); /* OpenSSL may hold more, of which epoll knows nothing */
}

/* ---- connections ---- */

static void on_listener(unsigned number) {
    int fd, on = 1;
    while ((fd = accept4(listener[number], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= DESCRIPTORS) { close(fd); continue; }
        if (!peers[fd] && !(peers[fd] = malloc(sizeof **peers))) fail("malloc");
        memset(peers[fd], 0, offsetof(struct peer, head));
        peers[fd]->fd = fd, peers[fd]->listener = number, peers[fd]->life = ++lives;
        counted.open++, counted.connections++;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (context && !(peers[fd]->ssl = tls_open(context, fd, true))) fail("tls_open");
        watch(fd);
    }
    if (errno != EAGAIN && errno != ECONNABORTED) fail("accept");
}

static uint16_t listen_at(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* one that was killed returns to its port */
    if (bind(fd, (void *)&address, size) < 0 || listen(fd, 4096) < 0) fail("listen");
    if (getsockname(fd, (void *)&address, &size) < 0) fail("getsockname");
    listener[listeners++] = fd;
    watch(fd);
    return ntohs(address.sin_port);
}

static void print_counters(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"messages\": [");
    for (int i = 0; i < listeners; i++) printf("%s%lu", i ? ", " : "", counted.messages[i]);
    printf("], \"bytes\": %lu, \"connections\": %lu, \"open\": %lu, \"junk\": %lu, \"faults\": %lu, \"errors\": %lu, "
           "\"first_error\": \"%s\", \"cpu_s\": %.3f}\n",
           counted.bytes, counted.connections, counted.open, counted.junk, counted.faults, counted.errors, first_error, cpu_s);
    fflush(stdout);
}

static enum fault read_fault(const char *word) {
    for (int i = 0; i < FAULTS; i++)
        if (!strcmp(word, fault_names[i])) return (enum fault)i;
    fprintf(stderr, "hl7_receiver: --fault %s is unknown\n", word);
    exit(2);
}

static int read_options(int count, char **words, uint16_t *ports) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'}, {"delay-ms", 1, 0, 'd'}, {"fault", 1, 0, 'f'}, {"fault-every", 1, 0, 'e'},
        {"tls", 1, 0, 'l'},  {0, 0, 0, 0}};
    int wanted = 0;
    for (int option; (option = getopt_long(count, words, "", known, NULL)) != -1;) {
        if (option == 'p' && wanted < MAX_LISTENERS) ports[wanted++] = (uint16_t)atoi(optarg);
        else if (option == 'd') delay_ms = atof(optarg);
        else if (option == 'f') fault = read_fault(optarg);
        else if (option == 'e') fault_every = strtoul(optarg, NULL, 10);
        else if (option == 'l') {
            if (!(context = tls_context(optarg, true))) fail(optarg);
        }
        else exit(2);
    }
    if (!fault_every || delay_ms < 0) {
        fprintf(stderr, "hl7_receiver: --fault-every is at least 1, --delay-ms not below 0\n");
        exit(2);
    }
    return wanted ? wanted : 1;
}

static void on_ready(int fd) {
    char line[256];
    if (fd == STDIN_FILENO) {
        if (read(fd, line, sizeof line) <= 0) exit(0);
        return print_counters();
    }
    if (fd == alarm_fd) return on_alarm();
    for (int i = 0; i < listeners; i++)
        if (fd == listener[i]) return on_listener((unsigned)i);
    on_peer(peers[fd]);
}

int main(int count, char **words) {
    uint16_t ports[MAX_LISTENERS] = {0};
    int wanted = read_options(count, words, ports);
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (poller < 0 || alarm_fd < 0) fail("start");
    watch(STDIN_FILENO);
    watch(alarm_fd);
    printf("{\"ports\": [");
    for (int i = 0; i < wanted; i++) printf("%s%u", i ? ", " : "", listen_at(ports[i]));
    printf("]}\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event ready[256];
        int got = epoll_wait(poller, ready, 256, -1);
        if (got < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < got; i++) on_ready(ready[i].data.fd);
    }
}
