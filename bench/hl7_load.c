/* Senders of HL7 version 2: messages over MLLP, one in flight on each connection, every acknowledgement read and checked.
 *
 * One thread, epoll, no allocation per message; frames are built once, and only their control ID and patient change.
 *
 *     hl7_load --port P [--connections N] [--seconds S] [--warm-up S] [--message-bytes B] [--rate R] [--timeline]
 *
 * --message-bytes counts what is between start and end; --rate: messages a second on each connection (0: the next one as
 * soon as the last is acknowledged); --timeline: also how many were acknowledged, and how many failed, in each 100 ms;
 * also --address A, --patience S (for any one acknowledgement), --patients N (different ones), --seed N,
 * --tls CA.pem (TLS 1.3; the peer's certificate is signed by this).
 * SIGTERM ends it as the end of its time does: no message starts, those under way go on to their end.
 * The result is one line of JSON.  Counted are the messages acknowledged between warm-up and end (`messages`; `answered`
 * are all); a latency runs from the first byte until the acknowledgement is whole, with --rate from when the message was
 * due, so that one who is held up does not hide how many would have waited.  `started_at_s` is of the machine's monotonic
 * clock.  A good acknowledgement is one frame whose MSA-1 is AA and whose MSA-2 is the message's MSH-10.  Everything else
 * is an error: the connection is closed and opened anew (`opened` counts), after 10 ms, and the next message is sent.
 * Leaves out enhanced mode, batches, and sending a message again.
 * Source: HL7 version 2.5.1, chapters 2.9.2 and 2.15.9 (MSH); "Transport Specification: MLLP, Release 1".
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
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { ACK_ROOM = 1 << 12, SEND_AT_ONCE = 1 << 18, MAX_SAMPLES = 1 << 22, EVENTS = 128, BINS = 1 << 12, ID_SIZE = 19 };
enum { BIN_NS = 100000000, REOPEN_NS = 10000000, LEAST_BYTES = 300, PATIENT_SIZE = 8 };
enum stage { CLOSED, CONNECTING, RESTING, SENDING, AWAITING };
enum fault { WRONG_ID, NOT_ACCEPTED, ENDED_EARLY, TOO_LATE, MALFORMED, NOT_CONNECTED, FAULTS };
static const char *const fault_names[FAULTS] = {"wrong_id", "not_accepted", "closed", "timeouts", "malformed", "not_connected"};

struct connection {
    int fd;
    SSL *ssl; /* NULL: plain */
    enum stage stage;
    bool wants_write;
    unsigned ack_used;
    uint64_t wake_ns, due_ns, asked_ns, given_ns; /* wake_ns: when to open anew or to send the next, 0 for neither */
    size_t sent;
    char *frame;
    char ack[ACK_ROOM];
};

static struct {
    const char *address, *tls;
    int port, connections;
    size_t message_bytes;
    double seconds, warm_up_s, patience_s, rate;
    unsigned patients;
    uint64_t seed;
    bool timeline;
} wish = {.address = "127.0.0.1", .connections = 1, .message_bytes = 1000, .seconds = 1, .patience_s = 10, .patients = 10000, .seed = 1};

static struct {
    uint64_t messages, answered, opened, closed_idle, errors, faults[FAULTS];
    char first_error[160];
    uint32_t samples; /* of `latency`, in units of 100 ns */
    uint32_t good[BINS], bad[BINS];
} result;
static uint32_t *latency;

static struct connection *all;
static SSL_CTX *context;
static int poller, alarm_fd, busy, sleepers;
static uint64_t started_ns, counted_ns, end_ns, alarm_ns, sent_messages, chance;
static bool draining;
static volatile sig_atomic_t told_to_end;
static size_t frame_size, id_at, patient_at;

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

static void sleep_until(struct connection *one, uint64_t when) {
    if (!one->wake_ns) sleepers++;
    one->wake_ns = when;
}

static unsigned bin(uint64_t when) {
    uint64_t number = when > started_ns ? (when - started_ns) / BIN_NS : 0;
    return number < BINS ? (unsigned)number : BINS - 1;
}

/* ---- messages ---- */

static char *build_frame(int number) {
    char *frame = malloc(frame_size);
    if (!frame) fail("malloc");
    memset(frame, 'A', frame_size);
    int used = snprintf(frame, LEAST_BYTES,
                        "\x0bMSH|^~\\&|BENCH|WARD%05d|RECEIVER|BENCH|20310304050607||ORU^R01^ORU_R01|%0*d|P|2.5.1\r"
                        "PID|1||%0*d^^^BENCH^MR||DOE^JANE||19700101|F\rOBR|1|||11502-2\rOBX|1|TX|11502-2||",
                        number, ID_SIZE, 0, PATIENT_SIZE, 0);
    frame[used] = 'A';
    id_at = (size_t)(strstr(frame, "ORU_R01|") - frame) + strlen("ORU_R01|");
    patient_at = (size_t)(strstr(frame, "PID|1||") - frame) + strlen("PID|1||");
    memcpy(frame + frame_size - 3, "\r\x1c\r", 3);
    return frame;
}

static void put_digits(char *at, int count, uint64_t value) {
    for (; count-- > 0; value /= 10) at[count] = (char)('0' + value % 10);
}

/* The next message: ten digits that count, after nine that are this process's own. */
static void renew_message(struct connection *one) {
    chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
    put_digits(one->frame + id_at, 9, (uint64_t)getpid() % 10000 * 100000 + wish.seed % 100000);
    put_digits(one->frame + id_at + 9, 10, ++sent_messages);
    put_digits(one->frame + patient_at, PATIENT_SIZE, chance % wish.patients);
}

static void hang_up(struct connection *one, bool soon) {
    if (one->stage == SENDING || one->stage == AWAITING) busy--;
    SSL_free(one->ssl);
    one->ssl = NULL;
    close(one->fd);
    one->fd = -1;
    one->stage = CLOSED;
    if (!draining) sleep_until(one, now_ns() + (soon ? 0 : REOPEN_NS));
}

static void wrong(struct connection *one, enum fault fault, const char *what, const char *more) {
    if (!result.errors++) snprintf(result.first_error, sizeof result.first_error, "%s%s%.80s", what, *more ? ": " : "", more);
    result.faults[fault]++;
    result.bad[bin(now_ns())]++;
    hang_up(one, false);
}

static void send_more(struct connection *one) {
    while (one->sent < frame_size) {
        size_t size = frame_size - one->sent;
        ssize_t sent = line_write(one->fd, one->ssl, one->frame + one->sent, size < SEND_AT_ONCE ? size : SEND_AT_ONCE);
        if (sent < 0 && errno == EAGAIN) return watch(one, true);
        if (sent <= 0) return wrong(one, ENDED_EARLY, "closed within a message", strerror(errno));
        one->sent += (size_t)sent;
    }
    watch(one, false);
    one->stage = AWAITING;
    one->given_ns = now_ns();
}

static void send_message(struct connection *one) {
    renew_message(one);
    one->stage = SENDING;
    one->sent = one->ack_used = 0;
    one->given_ns = now_ns();
    one->asked_ns = wish.rate > 0 ? one->due_ns : one->given_ns;
    busy++;
    send_more(one);
}

static void next_message(struct connection *one) {
    one->stage = RESTING;
    if (draining) return;
    if (wish.rate > 0) {
        one->due_ns += (uint64_t)(1e9 / wish.rate);
        if (one->due_ns > now_ns()) return sleep_until(one, one->due_ns);
    }
    send_message(one);
}

/* ---- acknowledgements ---- */

static void acknowledged(struct connection *one) {
    uint64_t now = now_ns();
    busy--;
    result.answered++;
    result.good[bin(now)]++;
    if (now >= counted_ns && now < end_ns) {
        result.messages++;
        if (result.samples < MAX_SAMPLES) latency[result.samples++] = (uint32_t)((now - one->asked_ns) / 100);
    }
    next_message(one);
}

static void read_ack(struct connection *one) {
    char *end = memmem(one->ack, one->ack_used, "\x1c\r", 2);
    if (one->ack[0] != 0x0b) return wrong(one, MALFORMED, "an acknowledgement that does not begin with 0B", "");
    if (!end && one->ack_used == ACK_ROOM - 1) return wrong(one, MALFORMED, "an acknowledgement without end", "");
    if (!end) return;
    if (end + 2 != one->ack + one->ack_used) return wrong(one, MALFORMED, "more than one acknowledgement", "");
    *end = 0;
    char *msa = strstr(one->ack, "\rMSA|");
    char *id = msa ? strchr(msa + 5, '|') : NULL;
    if (!id) return wrong(one, MALFORMED, "an acknowledgement without MSA", "");
    if (id - msa != 7 || memcmp(msa + 5, "AA", 2)) return wrong(one, NOT_ACCEPTED, "not accepted", msa + 5);
    if (strcspn(++id, "|\r") != ID_SIZE || memcmp(id, one->frame + id_at, ID_SIZE))
        return wrong(one, WRONG_ID, "the acknowledgement of another message", id);
    acknowledged(one);
}

static void read_more(struct connection *one) {
    ssize_t got = line_read(one->fd, one->ssl, one->ack + one->ack_used, ACK_ROOM - 1 - one->ack_used);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0 && one->stage == RESTING) { /* nothing was asked: the peer may close */
        result.closed_idle++;
        return hang_up(one, true);
    }
    if (got <= 0) return wrong(one, ENDED_EARLY, "closed before the acknowledgement", got < 0 ? strerror(errno) : "");
    if (one->stage == RESTING) return wrong(one, MALFORMED, "an acknowledgement that nobody waits for", "");
    if (one->stage == SENDING) return wrong(one, MALFORMED, "an acknowledgement before the message was whole", "");
    one->ack_used += (unsigned)got;
    read_ack(one);
}

/* ---- connections ---- */

static void open_connection(struct connection *one) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wish.port)};
    inet_pton(AF_INET, wish.address, &to.sin_addr);
    int yes = 1;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (one->fd < 0) fail("socket");
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    one->stage = CONNECTING;
    one->wants_write = true;
    one->given_ns = now_ns();
    result.opened++;
    if (connect(one->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) fail("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = one};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, one->fd, &event) < 0) fail("epoll_ctl");
}

/* Go on with the handshake; false while it is not done, or when it failed. */
static bool shake_hands(struct connection *one) {
    if (!one->ssl && !(one->ssl = tls_open(context, one->fd, false))) fail("tls_open");
    ERR_clear_error(), errno = 0;
    int answer = SSL_do_handshake(one->ssl);
    if (answer == 1) return true;
    if (tls_outcome(one->ssl, answer) == 0 || errno != EAGAIN) wrong(one, NOT_CONNECTED, "no TLS", strerror(errno));
    else watch(one, SSL_want_write(one->ssl));
    return false;
}

static void connected(struct connection *one) {
    int why = 0;
    socklen_t size = sizeof why;
    getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &why, &size);
    if (why) return wrong(one, NOT_CONNECTED, "not connected", strerror(why));
    if (wish.tls && !shake_hands(one)) return;
    watch(one, false);
    one->stage = RESTING;
    if (!started_ns || draining) return;
    one->due_ns = now_ns();
    send_message(one);
}

static void handle(struct connection *one, uint32_t events) {
    if (one->fd < 0) return;
    if (one->stage == CONNECTING) {
        if (one->ssl || events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) connected(one);
        return;
    }
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        uint64_t before = sent_messages;
        read_more(one);
        if (one->fd < 0 || sent_messages != before) return;
    }
    if ((events & EPOLLOUT) && one->stage == SENDING) send_more(one);
}

/* Do what is due, and set the alarm to what is due next. */
static void wake_sleepers(void) {
    uint64_t now = now_ns(), next = 0;
    for (int i = 0; sleepers && i < wish.connections; i++) {
        struct connection *one = &all[i];
        if (!one->wake_ns) continue;
        if (one->wake_ns <= now || draining) {
            one->wake_ns = 0;
            sleepers--;
            if (draining) continue;
            if (one->stage == CLOSED) open_connection(one);
            else if (one->stage == RESTING) send_message(one);
        }
        if (one->wake_ns && (!next || one->wake_ns < next)) next = one->wake_ns;
    }
    if (next == alarm_ns || !next) return;
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)(next / 1000000000u), .tv_nsec = (long)(next % 1000000000u)}};
    if (timerfd_settime(alarm_fd, TFD_TIMER_ABSTIME, &at, NULL) < 0) fail("timerfd_settime");
    alarm_ns = next;
}

static void wait_a_little(void) {
    struct epoll_event events[EVENTS];
    uint64_t rings;
    int count = epoll_wait(poller, events, EVENTS, 20);
    if (count < 0 && errno != EINTR) fail("epoll_wait");
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr) handle(events[i].data.ptr, events[i].events);
        else if (read(alarm_fd, &rings, sizeof rings) > 0) alarm_ns = 0;
    if (sleepers) wake_sleepers();
}

static void give_up_late_ones(void) {
    uint64_t limit = (uint64_t)(wish.patience_s * 1e9), now = now_ns();
    for (int i = 0; i < wish.connections; i++) {
        struct connection *one = &all[i];
        if (one->fd < 0 || one->stage == RESTING || now - one->given_ns <= limit) continue;
        if (one->stage == CONNECTING) wrong(one, NOT_CONNECTED, "not connected in time", "");
        else wrong(one, TOO_LATE, "no acknowledgement in time", "");
    }
}

static bool all_open(void) {
    for (int i = 0; i < wish.connections; i++)
        if (all[i].stage == CONNECTING) return false;
    return true;
}

static void begin(void) {
    started_ns = now_ns();
    counted_ns = started_ns + (uint64_t)(wish.warm_up_s * 1e9);
    end_ns = counted_ns + (uint64_t)(wish.seconds * 1e9);
    for (int i = 0; i < wish.connections; i++) {
        struct connection *one = &all[i];
        if (one->stage != RESTING || one->fd < 0) continue;
        one->due_ns = started_ns;
        if (wish.rate > 0) one->due_ns += (uint64_t)(1e9 / wish.rate * i / wish.connections);
        if (wish.rate > 0 && i) sleep_until(one, one->due_ns);
        else send_message(one);
    }
}

static void run(void) {
    uint64_t limit = now_ns() + (uint64_t)(wish.patience_s * 1e9);
    for (int i = 0; i < wish.connections; i++) open_connection(&all[i]);
    while (!all_open() && !result.errors && now_ns() < limit) wait_a_little();
    begin();
    uint64_t looked = started_ns;
    while (!draining || busy > 0) {
        wait_a_little();
        uint64_t now = now_ns();
        if (told_to_end && now < end_ns) end_ns = now;
        if (now >= end_ns) draining = true;
        if (now - looked > 100000000u) {
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

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void tell_bins(const char *name, const uint32_t *counts) {
    printf(", \"%s\": [", name);
    for (unsigned i = 0; wish.timeline && i <= bin(end_ns); i++) printf("%s%u", i ? ", " : "", counts[i]);
    printf("]");
}

static void tell(void) {
    double seconds = end_ns > counted_ns ? (double)(end_ns - counted_ns) / 1e9 : 0;
    qsort(latency, result.samples, sizeof *latency, by_size);
    for (char *c = result.first_error; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ' || (unsigned char)*c > '~') *c = '?';
    printf("{\"seconds\": %.6f, \"started_at_s\": %.6f, \"messages\": %lu, \"answered\": %lu, \"opened\": %lu, \"closed_idle\": %lu, "
           "\"errors\": %lu, \"faults\": {",
           seconds, (double)started_ns / 1e9, result.messages, result.answered, result.opened, result.closed_idle, result.errors);
    for (int i = 0; i < FAULTS; i++) printf("%s\"%s\": %lu", i ? ", " : "", fault_names[i], result.faults[i]);
    printf("}, \"first_error\": \"%s\", \"cpu_s\": %.3f, \"p50_ms\": %.4f, \"p99_ms\": %.3f, \"max_ms\": %.3f",
           result.first_error, cpu_s(), at(0.5), at(0.99), at(1));
    tell_bins("good_by_100_ms", result.good);
    tell_bins("bad_by_100_ms", result.bad);
    printf("}\n");
}

static void on_signal(int number) {
    told_to_end = number;
}

static void read_wishes(int count, char **words) {
    static const struct option known[] = {
        {"address", 1, 0, 'a'},  {"port", 1, 0, 'p'},          {"connections", 1, 0, 'c'}, {"seconds", 1, 0, 's'},
        {"warm-up", 1, 0, 'u'},  {"message-bytes", 1, 0, 'b'}, {"rate", 1, 0, 'r'},        {"patience", 1, 0, 'w'},
        {"patients", 1, 0, 'n'}, {"seed", 1, 0, 'e'},          {"timeline", 0, 0, 't'},    {"tls", 1, 0, 'l'},
        {0, 0, 0, 0},
    };
    for (int option; (option = getopt_long(count, words, "", known, NULL)) != -1;) switch (option) {
        case 'a': wish.address = optarg; break;
        case 'p': wish.port = atoi(optarg); break;
        case 'c': wish.connections = atoi(optarg); break;
        case 's': wish.seconds = atof(optarg); break;
        case 'u': wish.warm_up_s = atof(optarg); break;
        case 'b': wish.message_bytes = strtoul(optarg, NULL, 10); break;
        case 'r': wish.rate = atof(optarg); break;
        case 'w': wish.patience_s = atof(optarg); break;
        case 'n': wish.patients = (unsigned)atoi(optarg); break;
        case 'e': wish.seed = strtoul(optarg, NULL, 10); break;
        case 't': wish.timeline = true; break;
        case 'l': wish.tls = optarg; break;
        default: exit(2);
        }
    if (wish.port <= 0 || wish.connections <= 0 || wish.seconds <= 0 || !wish.patients || wish.message_bytes < LEAST_BYTES) {
        fprintf(stderr, "hl7_load: --port, --connections, --patients and --seconds are above 0, --message-bytes at least %d\n", LEAST_BYTES);
        exit(2);
    }
}

int main(int count, char **words) {
    read_wishes(count, words);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_signal);
    if (wish.tls && !(context = tls_context(wish.tls, false))) {
        fprintf(stderr, "hl7_load: no certificate can be read from %s\n", wish.tls);
        return 2;
    }
    frame_size = wish.message_bytes + 3;
    chance = wish.seed * 0x9E3779B97F4A7C15u | 1;
    latency = malloc(MAX_SAMPLES * sizeof *latency);
    all = calloc((size_t)wish.connections, sizeof *all);
    poller = epoll_create1(EPOLL_CLOEXEC);
    alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (!latency || !all || poller < 0 || alarm_fd < 0) fail("start");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, alarm_fd, &event) < 0) fail("epoll_ctl");
    for (int i = 0; i < wish.connections; i++) all[i].frame = build_frame(i);
    run();
    tell();
    return 0;
}
