/* A DICOM node that accepts everything and keeps nothing: the far end of every measurement.
 *
 * One thread, epoll, no allocation per message.  It counts what is whole, and checks what a relay could spoil: lengths,
 * contexts, flags, commands.  What it did not expect is a protocol error: counted, answered with A-ABORT.
 *
 *     dicom_sink [--listeners N] [--max-length BYTES] [--max-associate BYTES] [--address A] [--port P]
 *
 * Without --port each listener takes a free one, else P, P + 1 and so on; without --address they are of loopback.
 * It prints {"ports": [...]}, then its counters for each line on standard input, and ends with that input.
 * Source: DICOM PS3.8 section 9.3 and annex E; PS3.7 sections 9.3.1 (C-STORE) and 9.3.5 (C-ECHO).
 */
#define _GNU_SOURCE
#include "dicom_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_DESCRIPTORS = 1 << 16, BODY_ROOM = 1 << 16, OUT_ROOM = 1 << 14, COMMAND_ROOM = 1024, READ_ROOM = 1 << 18 };
enum stage { IN_HEADER, IN_BODY, IN_PDV, IN_FRAGMENT };

struct peer {
    int fd;
    enum stage stage;
    bool associated, awaits_data_set;
    uint8_t pdu_type, context, control, message_context;
    uint8_t small[6]; /* a header that the network cut */
    unsigned small_used, command_used, out_used;
    uint32_t pdu_left, fragment_left, body_used;
    uint64_t data_set_bytes;
    bool accepted[256];
    uint8_t command[COMMAND_ROOM], body[BODY_ROOM], out[OUT_ROOM];
};

static struct {
    uint64_t associations, releases, drops, aborts, objects, bytes, echoes, protocol_errors, open;
} counted;
static struct peer *peers[MAX_DESCRIPTORS];
static uint32_t max_length = 16384, max_associate = BODY_ROOM;
static int poller;
static char first_error[128];

static void watch(int fd, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, how, fd, &event) < 0) fail("epoll_ctl");
}

/* Send now, and keep what the socket does not take. Answers are few and small: more than OUT_ROOM is a bug of a peer. */
static bool answer(struct peer *peer, const uint8_t *bytes, size_t size) {
    ssize_t sent = peer->out_used ? 0 : send(peer->fd, bytes, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return false;
    if (sent < 0) sent = 0;
    if ((size_t)sent == size) return true;
    if (size - sent > OUT_ROOM - peer->out_used) return false;
    memcpy(peer->out + peer->out_used, bytes + sent, size - sent);
    peer->out_used += size - sent;
    watch(peer->fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    return true;
}

static bool flush(struct peer *peer) {
    ssize_t sent = send(peer->fd, peer->out, peer->out_used, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN;
    peer->out_used -= sent;
    memmove(peer->out, peer->out + sent, peer->out_used);
    if (!peer->out_used) watch(peer->fd, EPOLLIN, EPOLL_CTL_MOD);
    return true;
}

static bool refuse(struct peer *peer, const char *why) {
    counted.protocol_errors++;
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s", why);
    uint8_t abort_pdu[10] = {ABORT, 0, 0, 0, 0, 4, 0, 0, 2, 0};
    answer(peer, abort_pdu, sizeof abort_pdu);
    return false;
}

/* Answer one proposed context: Implicit VR LE where it is offered, else the first transfer syntax. */
static size_t accept_context(uint8_t *at, const uint8_t *item, unsigned size) {
    const uint8_t *chosen = NULL;
    for (unsigned i = 4; i + 4 <= size; i += 4 + be16(item + i + 2)) {
        if (item[i] != 0x40 || i + 4 + be16(item + i + 2) > size) continue;
        bool implicit = be16(item + i + 2) >= 17 && !memcmp(item + i + 4, IMPLICIT_LE "\0", 17 + (be16(item + i + 2) > 17));
        if (!chosen || implicit) chosen = item + i;
    }
    if (!chosen) return 0;
    uint8_t value[4 + 4 + 64] = {item[0]};
    unsigned length = be16(chosen + 2) > 64 ? 64 : be16(chosen + 2);
    size_t used = 4 + put_item(value + 4, 0x40, chosen + 4, length);
    return put_item(at, 0x21, value, used);
}

static bool on_associate(struct peer *peer) {
    static uint8_t ac[2 * BODY_ROOM]; /* an answered context is never longer than the proposed one */
    if (peer->associated || peer->body_used < ASSOCIATE_FIXED - PDU_HEADER) return refuse(peer, "associate request out of place");
    memcpy(ac + PDU_HEADER, peer->body, ASSOCIATE_FIXED - PDU_HEADER);
    size_t used = ASSOCIATE_FIXED;
    used += put_item(ac + used, 0x10, APPLICATION_CONTEXT, sizeof APPLICATION_CONTEXT - 1);
    for (uint32_t at = ASSOCIATE_FIXED - PDU_HEADER; at + 4 <= peer->body_used;) {
        unsigned size = be16(peer->body + at + 2);
        if (at + 4 + size > peer->body_used) return refuse(peer, "item overruns the associate request");
        if (peer->body[at] == 0x20 && size >= 4) {
            used += accept_context(ac + used, peer->body + at + 4, size);
            peer->accepted[peer->body[at + 4]] = true;
        }
        at += 4 + size;
    }
    used += put_user_information(ac + used, max_length);
    put_pdu_header(ac, AC, used - PDU_HEADER);
    peer->associated = true;
    counted.associations++;
    return answer(peer, ac, used);
}

static bool respond(struct peer *peer, int command_field) {
    uint8_t pdu[COMMAND_ROOM];
    uint8_t *set = pdu + PDU_HEADER + PDV_HEADER, *elements = set + 12;
    uint32_t class_size = 0, instance_size = 0;
    const uint8_t *sop_class = find_element(peer->command, peer->command_used, SOP_CLASS, &class_size);
    const uint8_t *instance = find_element(peer->command, peer->command_used, SOP_INSTANCE, &instance_size);
    size_t used = 0;
    if (class_size > 64 || instance_size > 64) return refuse(peer, "UID of more than 64 bytes");
    if (sop_class) used += put_element(elements, 0, SOP_CLASS, sop_class, class_size);
    used += put_us(elements + used, COMMAND_FIELD, command_field);
    used += put_us(elements + used, RESPONDED_TO, find_us(peer->command, peer->command_used, MESSAGE_ID));
    used += put_us(elements + used, DATA_SET_TYPE, NO_DATA_SET);
    used += put_us(elements + used, STATUS, 0);
    if (instance) used += put_element(elements + used, 0, SOP_INSTANCE, instance, instance_size);
    used = close_command(set, used);
    put_data_header(pdu, peer->message_context, IS_COMMAND | IS_LAST, used);
    peer->command_used = 0;
    return answer(peer, pdu, PDU_HEADER + PDV_HEADER + used);
}

static bool on_command(struct peer *peer) {
    int field = find_us(peer->command, peer->command_used, COMMAND_FIELD);
    int data_set = find_us(peer->command, peer->command_used, DATA_SET_TYPE);
    uint32_t size;
    const uint8_t *group_length = find_element(peer->command, peer->command_used, 0, &size);
    if (!group_length || size != 4 || le32(group_length) + 12 != peer->command_used) return refuse(peer, "wrong group length");
    if (find_us(peer->command, peer->command_used, MESSAGE_ID) < 0) return refuse(peer, "command without a message id");
    if (field == C_STORE_RQ && data_set >= 0 && data_set != NO_DATA_SET) {
        peer->awaits_data_set = true;
        return true;
    }
    if (field != C_ECHO_RQ || data_set != NO_DATA_SET) return refuse(peer, "neither C-STORE nor C-ECHO");
    counted.echoes++;
    return respond(peer, C_ECHO_RSP);
}

static bool on_fragment_end(struct peer *peer) {
    peer->stage = peer->pdu_left ? IN_PDV : IN_HEADER;
    if (!(peer->control & IS_LAST)) return true;
    if (peer->control & IS_COMMAND) return on_command(peer);
    counted.objects++;
    counted.bytes += peer->data_set_bytes;
    peer->data_set_bytes = 0;
    peer->awaits_data_set = false;
    return respond(peer, C_STORE_RSP);
}

static bool on_pdv(struct peer *peer) {
    uint32_t length = be32(peer->small);
    peer->context = peer->small[4], peer->control = peer->small[5];
    peer->pdu_left -= PDV_HEADER;
    if (length < 2 || length - 2 > peer->pdu_left || length & 1) return refuse(peer, "wrong PDV length");
    if (!peer->accepted[peer->context]) return refuse(peer, "context was not accepted");
    bool command = peer->control & IS_COMMAND;
    if (command == peer->awaits_data_set) return refuse(peer, "command and data set interleaved");
    if ((!command || peer->command_used) && peer->context != peer->message_context) return refuse(peer, "context changed");
    peer->message_context = peer->context;
    peer->fragment_left = length - 2;
    peer->pdu_left -= length - 2;
    peer->stage = IN_FRAGMENT;
    return peer->fragment_left ? true : on_fragment_end(peer);
}

static bool on_body(struct peer *peer) {
    static const uint8_t release_rp[10] = {RELEASE_RP, 0, 0, 0, 0, 4};
    peer->stage = IN_HEADER;
    if (peer->pdu_type == RQ) return on_associate(peer);
    if (peer->pdu_type == ABORT) return counted.aborts++, false;
    if (peer->pdu_type != RELEASE_RQ || !peer->associated) return refuse(peer, "PDU out of place");
    counted.releases++;
    peer->associated = false; /* its client closes now: PS3.8 table 9-6, AR-4 */
    return answer(peer, release_rp, sizeof release_rp);
}

static bool on_header(struct peer *peer) {
    peer->pdu_type = peer->small[0];
    peer->pdu_left = be32(peer->small + 2);
    if (peer->pdu_type == DATA) {
        if (!peer->associated) return refuse(peer, "P-DATA outside an association");
        if (max_length && peer->pdu_left > max_length) return refuse(peer, "P-DATA longer than announced");
        if (peer->pdu_left < PDV_HEADER) return refuse(peer, "P-DATA without a PDV");
        peer->stage = IN_PDV;
        return true;
    }
    if (peer->pdu_left == 0 || peer->pdu_left > (peer->pdu_type == RQ ? max_associate : 4)) return refuse(peer, "wrong PDU length");
    peer->body_used = 0;
    peer->stage = IN_BODY;
    return true;
}

/* Gather the six bytes of a header, which may come in pieces. */
static size_t gather(struct peer *peer, const uint8_t *at, size_t size) {
    size_t take = 6 - peer->small_used < size ? 6 - peer->small_used : size;
    memcpy(peer->small + peer->small_used, at, take);
    peer->small_used += take;
    return take;
}

static bool consume(struct peer *peer, const uint8_t *at, size_t size) {
    while (size > 0) {
        bool good = true;
        size_t take;
        if (peer->stage == IN_HEADER || peer->stage == IN_PDV) {
            take = gather(peer, at, size);
            if (peer->small_used == 6) {
                peer->small_used = 0;
                if (peer->stage == IN_PDV && peer->pdu_left < PDV_HEADER) good = refuse(peer, "PDV overruns its PDU");
                else good = peer->stage == IN_PDV ? on_pdv(peer) : on_header(peer);
            }
        } else if (peer->stage == IN_BODY) {
            take = peer->pdu_left < size ? peer->pdu_left : size;
            memcpy(peer->body + peer->body_used, at, take);
            peer->body_used += take, peer->pdu_left -= take;
            if (!peer->pdu_left) good = on_body(peer);
        } else {
            take = peer->fragment_left < size ? peer->fragment_left : size;
            if (!(peer->control & IS_COMMAND)) peer->data_set_bytes += take;
            else if (take > COMMAND_ROOM / 2 - peer->command_used) good = refuse(peer, "command set too long");
            else memcpy(peer->command + peer->command_used, at, take), peer->command_used += take;
            peer->fragment_left -= take;
            if (good && !peer->fragment_left) good = on_fragment_end(peer);
        }
        if (!good) return false;
        at += take, size -= take;
    }
    return true;
}

static void hang_up(struct peer *peer) {
    if (peer->associated) counted.drops++;
    counted.open--;
    close(peer->fd);
}

static void on_peer(struct peer *peer, uint32_t events) {
    static uint8_t buffer[READ_ROOM];
    if (events & EPOLLOUT && !flush(peer)) return hang_up(peer);
    if (!(events & ~EPOLLOUT)) return;
    ssize_t got = recv(peer->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0 || !consume(peer, buffer, got)) hang_up(peer);
}

static void on_listener(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_DESCRIPTORS) { close(fd); continue; }
        if (!peers[fd] && !(peers[fd] = calloc(1, sizeof **peers))) fail("calloc");
        memset(peers[fd], 0, offsetof(struct peer, command));
        peers[fd]->fd = fd;
        counted.open++;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
    if (errno != EAGAIN && errno != ECONNABORTED) fail("accept");
}

static int start_listening(const char *host, uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(*port)};
    socklen_t size = sizeof address;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("--address");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) fail("setsockopt");
    if (bind(fd, (void *)&address, size) < 0 || listen(fd, 4096) < 0) fail("listen");
    if (getsockname(fd, (void *)&address, &size) < 0) fail("getsockname");
    *port = ntohs(address.sin_port);
    return fd;
}

static void print_counters(void) {
    printf("{\"associations\": %lu, \"releases\": %lu, \"drops\": %lu, \"aborts\": %lu, \"objects\": %lu, \"bytes\": %lu, "
           "\"echoes\": %lu, \"open\": %lu, \"protocol_errors\": %lu, \"first_error\": \"%s\", \"cpu_s\": %.3f}\n",
           counted.associations, counted.releases, counted.drops, counted.aborts, counted.objects, counted.bytes,
           counted.echoes, counted.open, counted.protocol_errors, first_error, cpu_s());
    fflush(stdout);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"listeners", required_argument, 0, 'l'}, {"max-length", required_argument, 0, 'm'},
        {"max-associate", required_argument, 0, 'a'}, {"address", required_argument, 0, 'h'},
        {"port", required_argument, 0, 'p'}, {0}};
    const char *host = "127.0.0.1";
    int listeners = 1, first_port = 0, option, listener[16];
    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if (option == 'l') listeners = atoi(optarg);
        else if (option == 'm') max_length = atoi(optarg);
        else if (option == 'a') max_associate = atoi(optarg);
        else if (option == 'h') host = optarg;
        else if (option == 'p') first_port = atoi(optarg);
        else return 2;
    }
    if (listeners < 1 || listeners > 16 || max_associate > BODY_ROOM) {
        fprintf(stderr, "dicom_sink: --listeners is 1 to 16, --max-associate at most %d\n", BODY_ROOM);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    allow_all_descriptors();
    poller = epoll_create1(EPOLL_CLOEXEC);
    watch(STDIN_FILENO, EPOLLIN, EPOLL_CTL_ADD);
    printf("{\"ports\": [");
    for (int i = 0; i < listeners; i++) {
        uint16_t port = first_port ? first_port + i : 0;
        listener[i] = start_listening(host, &port);
        watch(listener[i], EPOLLIN, EPOLL_CTL_ADD);
        printf("%s%d", i ? ", " : "", port);
    }
    printf("]}\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event ready[256];
        int count = epoll_wait(poller, ready, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            char line[256];
            if (fd == STDIN_FILENO) {
                if (read(fd, line, sizeof line) <= 0) return 0;
                print_counters();
            } else if (fd >= listener[0] && fd <= listener[listeners - 1]) on_listener(fd);
            else on_peer(peers[fd], ready[i].events);
        }
    }
}
