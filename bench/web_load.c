/* Viewers and modalities under load: HTTP/1.1 requests over many connections, downloads or uploads.
 *
 * One thread, epoll, no allocation per request, reads of 256 KiB: wrk and h2load read in 8 and 16 KiB, and with large
 * objects they are what is measured.  Every answer is checked (status 200, length, framing); what is wrong is counted as
 * an error and its connection opened anew, and a measurement with errors is worth nothing.
 *
 *     web_load --port P [--path /p] [--connections N] [--seconds S] [--body-bytes B] [--expect-bytes B]
 *              [--requests-per-connection R]
 *
 * --body-bytes: POST that many; --expect-bytes: each answer has that many; --requests-per-connection: open anew after so
 * many (0: never); also --address A[,B...] (in turn), --patience S (for any one answer).
 * SIGTERM ends it as the end of its time does.  The result is one line of JSON.  Time runs from the first request, with all connections open, to the last answer: after
 * --seconds no request starts, and those that are open go on to their end, so that only what is whole counts.
 * A kept connection that is closed before a byte of the answer came counts as an error, too (`stale` says how many):
 * browsers would ask again, and so does this, but a request that somebody has to send twice was not served.
 * Leaves out chunked answers, which the nodes of the benchmark do not send, and HTTP/2, for which there is h2load.
 * Source: RFC 9112, sections 4, 6.3 and 9.3.
 */
#define _GNU_SOURCE
#include "addresses.h"

#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_ROOM = 1 << 13, READ_ROOM = 1 << 18, SEND_AT_ONCE = 1 << 18, MAX_SAMPLES = 1 << 22, EVENTS = 64 };
enum stage { CONNECTING, IDLE, ASKING, IN_HEAD, IN_BODY };

struct connection {
    int fd;
    enum stage stage;
    bool wants_write, closes;
    unsigned served, head_used;
    uint64_t asked_ns, sent, left;
    char head[HEAD_ROOM];
};

static struct {
    const char *address, *path;
    int port, connections;
    unsigned requests_per_connection;
    uint64_t body_bytes;
    int64_t expect_bytes;
    double seconds, patience_s;
} wish = {.address = "127.0.0.1", .path = "/", .connections = 1, .expect_bytes = -1, .seconds = 1, .patience_s = 30};

static struct {
    uint64_t requests, bytes, opened, errors, stale;
    char first_error[160];
    uint32_t samples; /* of `latency`, in units of 100 ns */
} result;
static uint32_t *latency;

static struct connection *all;
static int poller;
static uint64_t started_ns;
static bool draining; /* no new request starts */
static volatile sig_atomic_t told_to_end;
static int busy;      /* connections whose answer is still to come */
static char request[1024];
static size_t request_size;
static uint8_t room[READ_ROOM];
static const uint8_t body[SEND_AT_ONCE];

static void open_connection(struct connection *one);

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(struct connection *one, bool write) {
    if (write == one->wants_write) return;
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = one};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, one->fd, &event) < 0) fail("epoll_ctl");
    one->wants_write = write;
}

static void renew(struct connection *one) {
    close(one->fd);
    one->fd = -1;
    if (!draining) open_connection(one);
}

static void wrong(struct connection *one, const char *what, const char *more) {
    if (!result.errors++) snprintf(result.first_error, sizeof result.first_error, "%s%s%.80s", what, *more ? ": " : "", more);
    if (one->stage == ASKING || one->stage == IN_HEAD || one->stage == IN_BODY) busy--;
    renew(one);
}

static void closed_early(struct connection *one, int why) {
    static const char *const where[] = {"not connected", "closed", "closed while it was asked", "closed before the answer",
                                        "closed within the answer"};
    if (one->served && !one->head_used && one->stage != IN_BODY) result.stale++;
    wrong(one, where[one->stage], why ? strerror(why) : "");
}

/* ---- asking ---- */

static void send_more(struct connection *one) {
    uint64_t whole = request_size + wish.body_bytes;
    while (one->sent < whole) {
        bool in_head = one->sent < request_size;
        uint64_t in_body = one->sent - request_size;
        const void *from = in_head ? (const void *)(request + one->sent) : body;
        size_t size = in_head ? request_size - one->sent : wish.body_bytes - in_body;
        if (size > SEND_AT_ONCE) size = SEND_AT_ONCE;
        ssize_t sent = send(one->fd, from, size, MSG_NOSIGNAL | (in_head && wish.body_bytes ? MSG_MORE : 0));
        if (sent < 0 && errno == EAGAIN) {
            watch(one, true);
            return;
        }
        if (sent < 0) {
            closed_early(one, errno);
            return;
        }
        one->sent += (uint64_t)sent;
    }
    watch(one, false);
    one->stage = IN_HEAD;
}

static void ask(struct connection *one) {
    one->stage = ASKING;
    one->sent = one->head_used = 0;
    one->asked_ns = now_ns();
    busy++;
    send_more(one);
}

/* ---- answers ---- */

static void answered(struct connection *one) {
    result.requests++;
    if (result.samples < MAX_SAMPLES) latency[result.samples++] = (uint32_t)((now_ns() - one->asked_ns) / 100);
    busy--;
    one->stage = IDLE;
    one->served++;
    bool enough = wish.requests_per_connection && one->served >= wish.requests_per_connection;
    if (one->closes || enough) renew(one);
    else if (!draining) ask(one);
}

static const char *field(const char *head, const char *name) {
    const char *at = strcasestr(head, name);
    return at ? at + strlen(name) : NULL;
}

/* The head is whole: `size` bytes with its empty line, of `head_used`. */
static void read_head(struct connection *one, size_t size) {
    one->head[size - 2] = 0;
    const char *length = field(one->head, "\r\nContent-Length:");
    const char *connection = field(one->head, "\r\nConnection:");
    one->closes = connection && !strncasecmp(connection + strspn(connection, " "), "close", 5);
    if (strncmp(one->head, "HTTP/1.1 200 ", 13)) {
        one->head[strcspn(one->head, "\r")] = 0;
        wrong(one, "answered", one->head);
        return;
    }
    one->left = length ? strtoull(length, NULL, 10) : 0;
    if (!length || (wish.expect_bytes >= 0 && one->left != (uint64_t)wish.expect_bytes)) {
        wrong(one, "an answer of another length", length ? "" : "none is told");
        return;
    }
    size_t have = one->head_used - size;
    if (have > one->left) {
        wrong(one, "more bytes than the answer has", "");
        return;
    }
    result.bytes += one->left;
    one->left -= have;
    one->stage = IN_BODY;
    if (!one->left) answered(one);
}

static void read_more(struct connection *one) {
    if (one->stage == IN_BODY) {
        ssize_t got = recv(one->fd, room, one->left < READ_ROOM ? one->left : READ_ROOM, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            result.bytes -= one->left;
            closed_early(one, got < 0 ? errno : 0);
            return;
        }
        one->left -= (uint64_t)got;
        if (!one->left) answered(one);
        return;
    }
    ssize_t got = recv(one->fd, one->head + one->head_used, HEAD_ROOM - 1 - one->head_used, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0 && one->stage == IDLE) renew(one); /* nothing was asked: the peer may close */
    else if (got <= 0) closed_early(one, got < 0 ? errno : 0);
    else {
        one->head_used += (unsigned)got;
        one->head[one->head_used] = 0;
        char *end = strstr(one->head, "\r\n\r\n");
        if (one->stage == IDLE) wrong(one, "an answer that was not asked for", "");
        else if (end) read_head(one, (size_t)(end - one->head) + 4);
        else if (one->head_used == HEAD_ROOM - 1) wrong(one, "a head without end", "");
    }
}

/* ---- connections ---- */

static void open_connection(struct connection *one) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wish.port), .sin_addr = next_address()};
    int yes = 1;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (one->fd < 0) fail("socket");
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    one->stage = CONNECTING;
    one->served = one->head_used = 0;
    one->closes = false;
    one->wants_write = true;
    result.opened++;
    if (connect(one->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) fail("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = one};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, one->fd, &event) < 0) fail("epoll_ctl");
}

static void connected(struct connection *one) {
    int why = 0;
    socklen_t size = sizeof why;
    getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &why, &size);
    if (why) {
        usleep(1000); /* refused at once: not a million times a second */
        closed_early(one, why);
        return;
    }
    watch(one, false);
    one->stage = IDLE;
    if (started_ns && !draining) ask(one);
}

static void handle(struct connection *one, uint32_t events) {
    if (one->fd < 0) return;
    if (one->stage == CONNECTING) {
        if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) connected(one);
        return;
    }
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        int before = one->fd;
        read_more(one);
        if (one->fd != before || one->stage != ASKING) return;
    }
    if ((events & EPOLLOUT) && one->stage == ASKING) send_more(one);
}

static bool all_open(void) {
    for (int i = 0; i < wish.connections; i++)
        if (all[i].stage == CONNECTING) return false;
    return true;
}

static void wait_a_little(void) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, 20);
    if (count < 0 && errno != EINTR) fail("epoll_wait");
    for (int i = 0; i < count; i++) handle(events[i].data.ptr, events[i].events);
}

static void give_up_late_ones(void) {
    uint64_t limit = (uint64_t)(wish.patience_s * 1e9), now = now_ns();
    for (int i = 0; i < wish.connections; i++) {
        struct connection *one = &all[i];
        bool waits = one->stage == ASKING || one->stage == IN_HEAD || one->stage == IN_BODY;
        if (one->fd >= 0 && waits && now - one->asked_ns > limit) {
            if (one->stage == IN_BODY) result.bytes -= one->left;
            wrong(one, "no answer in time", "");
        }
    }
}

static void on_signal(int number) {
    told_to_end = number;
}

static void run(void) {
    uint64_t limit = now_ns() + (uint64_t)(wish.patience_s * 1e9);
    for (int i = 0; i < wish.connections; i++) open_connection(&all[i]);
    while (!all_open() && !result.errors && now_ns() < limit) wait_a_little();
    started_ns = now_ns();
    for (int i = 0; i < wish.connections; i++)
        if (all[i].stage == IDLE && all[i].fd >= 0) ask(&all[i]);
    uint64_t end = started_ns + (uint64_t)(wish.seconds * 1e9), looked = started_ns;
    while (!draining || busy > 0) {
        wait_a_little();
        uint64_t now = now_ns();
        if (now >= end || told_to_end) draining = true;
        if (now - looked > 250000000u) {
            give_up_late_ones();
            looked = now;
        }
    }
}

/* ---- the result ---- */

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double at(double share) {
    return result.samples ? latency[(uint32_t)(share * (result.samples - 1))] / 1e4 : 0;
}

static void tell(double seconds) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    qsort(latency, result.samples, sizeof *latency, by_size);
    for (char *c = result.first_error; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = '?';
    printf("{\"seconds\": %.6f, \"requests\": %lu, \"bytes\": %lu, \"opened\": %lu, \"errors\": %lu, \"stale\": %lu, "
           "\"first_error\": \"%s\", \"cpu_s\": %.3f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
           seconds, result.requests, wish.body_bytes ? result.requests * wish.body_bytes : result.bytes, result.opened,
           result.errors, result.stale, result.first_error, cpu_s, at(0.5), at(0.99), at(1));
}

static void read_wishes(int count, char **words) {
    static const struct option known[] = {
        {"address", 1, 0, 'a'},     {"port", 1, 0, 'p'},          {"path", 1, 0, 'u'},         {"connections", 1, 0, 'c'},
        {"seconds", 1, 0, 's'},     {"body-bytes", 1, 0, 'b'},    {"expect-bytes", 1, 0, 'e'}, {"patience", 1, 0, 'w'},
        {"requests-per-connection", 1, 0, 'r'}, {0, 0, 0, 0},
    };
    for (int option; (option = getopt_long(count, words, "", known, NULL)) != -1;) switch (option) {
        case 'a': wish.address = optarg; break;
        case 'p': wish.port = atoi(optarg); break;
        case 'u': wish.path = optarg; break;
        case 'c': wish.connections = atoi(optarg); break;
        case 's': wish.seconds = atof(optarg); break;
        case 'b': wish.body_bytes = strtoull(optarg, NULL, 10); break;
        case 'e': wish.expect_bytes = strtoll(optarg, NULL, 10); break;
        case 'w': wish.patience_s = atof(optarg); break;
        case 'r': wish.requests_per_connection = (unsigned)atoi(optarg); break;
        default: exit(2);
        }
    if (!read_addresses(wish.address) || wish.port <= 0 || wish.connections <= 0 || wish.seconds <= 0 || strlen(wish.path) > 512) {
        fprintf(stderr, "web_load: --address is of IPv4, --port, --connections and --seconds are above 0, --path at most 512 bytes\n");
        exit(2);
    }
}

int main(int count, char **words) {
    read_wishes(count, words);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_signal);
    char length[96] = "";
    if (wish.body_bytes) snprintf(length, sizeof length, "Content-Type: application/dicom\r\nContent-Length: %lu\r\n", wish.body_bytes);
    request_size = (size_t)snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: bench.example\r\n%s\r\n",
                                    wish.body_bytes ? "POST" : "GET", wish.path, length);
    latency = malloc(MAX_SAMPLES * sizeof *latency);
    all = calloc((size_t)wish.connections, sizeof *all);
    poller = epoll_create1(0);
    if (!latency || !all || poller < 0) fail("start");
    run();
    tell((double)(now_ns() - started_ns) / 1e9);
    return 0;
}
