/* Modalities under load: DICOM associations that store, verify, wait or are to be rejected.
 *
 * One thread, epoll, no allocation per message.  Every answer is checked (contexts, message id, status); what is wrong
 * is counted as an error, and a measurement with errors is worth nothing.
 *
 *     dicom_load store     --port P [--associations N] [--object-bytes B] [--seconds S] [--total-bytes B]
 *     dicom_load associate --port P [--associations N] [--seconds S]      associate and release, N at a time
 *     dicom_load echo      --port P [--seconds S] [--count C]             the same with a C-ECHO, one at a time
 *     dicom_load idle      --port P [--associations N] [--contexts 128]   hold them until a line on standard input
 *     dicom_load reject    --port P [--rate R] [--seconds S]              R a second, each must be answered with A-ASSOCIATE-RJ
 *
 * Also: --address A[,B...] (in turn), --called T, --calling T, --max-length BYTES (announced, and the longest P-DATA
 * sent), --patience S, --tls CA.pem (TLS 1.3; the peer's certificate is signed by this), --source A (send from this address).
 * The result is one line of JSON.  Time in `store` runs from the first object, with all associations open, to the last response;
 * only objects that were answered with success count.
 * Source: DICOM PS3.8 section 9.3 and annex E; PS3.7 sections 9.3.1 (C-STORE) and 9.3.5 (C-ECHO).
 */
#define _GNU_SOURCE
#include "addresses.h"
#include "dicom_tls.h"
#include "dicom_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { IN_ROOM = 1 << 14, COMMAND_ROOM = 1024, MAX_SAMPLES = 1 << 22, OPENING_AT_ONCE = 64, REJECTS_AT_ONCE = 1000 };
enum { CT_CONTEXT = 1, ECHO_CONTEXT = 3, BLOCK_PDUS = 64, SEND_AT_ONCE = 1 << 20 };
enum state { CLOSED, CONNECTING, SECURING, ASSOCIATING, OPEN, STORING, ECHOING, RELEASING };
enum mode { STORE, ASSOCIATE, ECHO, IDLE, REJECT };
static const char *const mode_names[] = {"store", "associate", "echo", "idle", "reject"};

struct association {
    int fd;
    struct tls *tls; /* NULL: plain */
    enum state state;
    bool wants_write;
    uint16_t message_id;
    unsigned number, in_used, command_used;
    uint64_t started_ns, objects;
    /* What is being sent: head, then `middle` bytes of the block again and again, then tail. */
    const uint8_t *head, *tail;
    size_t head_size, tail_size;
    uint64_t middle, sent;
    uint8_t *store; /* command set and first fragment of the next object */
    size_t store_size;
    uint8_t echo[256], command[COMMAND_ROOM], in[IN_ROOM];
};

static struct {
    const char *address, *called, *calling, *tls, *source;
    enum mode mode;
    int port, associations, contexts, count;
    uint32_t max_length;
    uint64_t object_bytes, total_bytes;
    double seconds, patience_s, rate;
} wish = {.address = "127.0.0.1", .called = "PACS", .calling = "BENCH", .associations = 1, .contexts = 2, .max_length = 16384,
          .object_bytes = 520000, .seconds = 3, .patience_s = 30, .rate = 100};

static struct {
    uint64_t objects, bytes, associations, rejected, errors;
    char first_error[160], reject[16];
    uint32_t samples; /* of `latency`, in units of 100 ns */
} result;
static uint32_t *latency;

static struct association *all;
static int poller, slots, opened;
static bool draining; /* store: no new object starts */
static uint8_t request[1 << 16];
static size_t request_size;
static uint8_t *block, *tail;
static size_t pdu_size, tail_size;
static uint32_t fragment, agreed_length;
static uint64_t middle_bytes;
static const uint8_t release_rq[10] = {RELEASE_RQ, 0, 0, 0, 0, 4};

static void error(const char *what, const char *more) {
    if (!result.errors++) snprintf(result.first_error, sizeof result.first_error, "%s%s%s", what, *more ? ": " : "", more);
}

static void sample(uint64_t since_ns) {
    if (result.samples < MAX_SAMPLES) latency[result.samples++] = (now_ns() - since_ns) / 100;
}

/* ---- what is sent ---- */

static size_t put_context(uint8_t *at, int id, const char *sop_class, int syntaxes) {
    uint8_t value[256] = {id};
    size_t used = 4 + put_item(value + 4, 0x30, sop_class, strlen(sop_class));
    used += put_item(value + used, 0x40, IMPLICIT_LE, sizeof IMPLICIT_LE - 1);
    if (syntaxes > 1) used += put_item(value + used, 0x40, EXPLICIT_LE, sizeof EXPLICIT_LE - 1);
    return put_item(at, 0x20, value, used);
}

static void put_title(uint8_t *at, const char *title) {
    memset(at, ' ', 16);
    memcpy(at, title, strlen(title) > 16 ? 16 : strlen(title));
}

/* CT Image Storage and Verification; as many more contexts as told, of the size that storescu proposes by default. */
static void build_request(void) {
    memset(request, 0, ASSOCIATE_FIXED);
    put_be16(request + 6, 1);
    put_title(request + 10, wish.called);
    put_title(request + 26, wish.calling);
    size_t used = ASSOCIATE_FIXED;
    used += put_item(request + used, 0x10, APPLICATION_CONTEXT, sizeof APPLICATION_CONTEXT - 1);
    used += put_context(request + used, CT_CONTEXT, CT_IMAGE_STORAGE, 1);
    used += put_context(request + used, ECHO_CONTEXT, VERIFICATION, 1);
    for (int i = 2; i < wish.contexts; i++) {
        char sop_class[64];
        snprintf(sop_class, sizeof sop_class, "1.2.840.10008.5.1.4.1.1.%d", 100 + i);
        used += put_context(request + used, 2 * i + 1, sop_class, 2);
    }
    used += put_user_information(request + used, wish.max_length);
    request_size = put_pdu_header(request, RQ, used - PDU_HEADER), request_size = used;
}

/* The data set up to its pixels; the SOP instance UID has a fixed width, so that every object has the same size. */
static size_t put_data_set_start(uint8_t *at, const char *instance, uint64_t object_bytes) {
    size_t used = put_element(at, 0x0008, 0x0016, CT_IMAGE_STORAGE, sizeof CT_IMAGE_STORAGE - 1);
    used += put_element(at + used, 0x0008, 0x0018, instance, strlen(instance));
    used += put_element(at + used, 0x0008, 0x0060, "CT", 2);
    used += put_element(at + used, 0x0010, 0x0010, "LOAD^BENCH", 10);
    used += put_element(at + used, 0x0010, 0x0020, "BENCH1", 6);
    used += put_element(at + used, 0x0020, 0x000D, "2.25.1", 6);
    used += put_element(at + used, 0x0020, 0x000E, "2.25.2", 6);
    put_le16(at + used, 0x7FE0), put_le16(at + used + 2, 0x0010);
    put_le32(at + used + 4, object_bytes - used - 8);
    return used + 8;
}

static void fill(uint8_t *at, size_t size) {
    for (size_t i = 0; i < size; i++) at[i] = i * 2654435761u >> 13; /* not zeros: nobody on the way may have it easier */
}

/* Lay out what all objects share, once the length of a P-DATA PDU is agreed: the block of whole PDUs, and the last one. */
static void lay_out_objects(void) {
    uint32_t length = agreed_length && agreed_length < wish.max_length ? agreed_length : wish.max_length;
    fragment = (length - PDV_HEADER) & ~1u; /* even, PS3.8 annex E.1 */
    pdu_size = PDU_HEADER + PDV_HEADER + fragment;
    uint64_t fragments = (wish.object_bytes + fragment - 1) / fragment;
    block = malloc(BLOCK_PDUS * pdu_size), tail = malloc(pdu_size);
    if (!block || !tail) fail("malloc");
    for (int i = 0; i < BLOCK_PDUS; i++) {
        size_t used = put_data_header(block + i * pdu_size, CT_CONTEXT, 0, fragment);
        fill(block + i * pdu_size + used, fragment);
    }
    middle_bytes = fragments > 2 ? (fragments - 2) * pdu_size : 0;
    if (fragments < 2) return;
    uint32_t last = wish.object_bytes - (fragments - 1) * fragment;
    tail_size = put_data_header(tail, CT_CONTEXT, IS_LAST, last) + last;
    fill(tail + tail_size - last, last);
}

static void build_store(struct association *a) {
    char instance[32];
    snprintf(instance, sizeof instance, "2.25.1%05u%09lu", a->number, a->objects);
    uint8_t *elements = a->store + PDU_HEADER + PDV_HEADER + 12;
    size_t used = put_element(elements, 0, SOP_CLASS, CT_IMAGE_STORAGE, sizeof CT_IMAGE_STORAGE - 1);
    used += put_us(elements + used, COMMAND_FIELD, C_STORE_RQ);
    used += put_us(elements + used, MESSAGE_ID, a->message_id);
    used += put_us(elements + used, PRIORITY, 0);
    used += put_us(elements + used, DATA_SET_TYPE, 1);
    used += put_element(elements + used, 0, SOP_INSTANCE, instance, strlen(instance));
    used = close_command(elements - 12, used);
    size_t at = put_data_header(a->store, CT_CONTEXT, IS_COMMAND | IS_LAST, used) + used;
    uint32_t first = wish.object_bytes < fragment ? wish.object_bytes : fragment;
    at += put_data_header(a->store + at, CT_CONTEXT, tail_size ? 0 : IS_LAST, first);
    size_t written = put_data_set_start(a->store + at, instance, wish.object_bytes);
    if (!a->store_size) fill(a->store + at + written, first - written);
    a->store_size = at + first;
}

static size_t build_echo(uint8_t *pdu, uint16_t message_id) {
    uint8_t *elements = pdu + PDU_HEADER + PDV_HEADER + 12;
    size_t used = put_element(elements, 0, SOP_CLASS, VERIFICATION, sizeof VERIFICATION - 1);
    used += put_us(elements + used, COMMAND_FIELD, C_ECHO_RQ);
    used += put_us(elements + used, MESSAGE_ID, message_id);
    used += put_us(elements + used, DATA_SET_TYPE, NO_DATA_SET);
    used = close_command(elements - 12, used);
    return put_data_header(pdu, ECHO_CONTEXT, IS_COMMAND | IS_LAST, used) + used;
}

/* ---- one association ---- */

static void watch(struct association *a, bool write, int how) {
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = a};
    a->wants_write = write;
    if (epoll_ctl(poller, how, a->fd, &event) < 0) fail("epoll_ctl");
}

static void hang_up(struct association *a) {
    if (a->tls) tls_close(a->tls), a->tls = NULL;
    close(a->fd);
    if (a->state != CLOSED) opened--;
    a->state = CLOSED;
}

static void give_up(struct association *a, const char *what, const char *more) {
    error(what, more);
    hang_up(a);
}

static int gather(struct association *a, struct iovec *pieces) {
    uint64_t at = a->sent, room = SEND_AT_ONCE;
    int count = 0;
    if (at < a->head_size) pieces[count++] = (struct iovec){(void *)(a->head + at), a->head_size - at}, at = a->head_size;
    while (at < a->head_size + a->middle && room && count < 12) {
        uint64_t offset = (at - a->head_size) % (BLOCK_PDUS * pdu_size);
        uint64_t size = BLOCK_PDUS * pdu_size - offset, left = a->head_size + a->middle - at;
        if (size > left) size = left;
        if (size > room) size = room;
        pieces[count++] = (struct iovec){block + offset, size};
        at += size, room -= size;
    }
    if (at >= a->head_size + a->middle && a->tail_size) {
        uint64_t offset = at - a->head_size - a->middle;
        if (offset < a->tail_size) pieces[count++] = (struct iovec){(void *)(a->tail + offset), a->tail_size - offset};
    }
    return count;
}

static void push(struct association *a) {
    uint64_t all_bytes = a->head_size + a->middle + a->tail_size;
    while (a->sent < all_bytes) {
        struct iovec pieces[13];
        struct msghdr message = {.msg_iov = pieces, .msg_iovlen = gather(a, pieces)};
        ssize_t sent = a->tls ? tls_send(a->tls, pieces, message.msg_iovlen) : sendmsg(a->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return give_up(a, "send", strerror(errno));
        if (sent < 0) break;
        a->sent += sent;
    }
    bool left = a->tls && !tls_flush(a->tls);
    if (left && a->tls->broken) return give_up(a, "send", strerror(errno));
    left |= a->sent < all_bytes;
    if (left != a->wants_write) watch(a, left, EPOLL_CTL_MOD);
}

static void say(struct association *a, const uint8_t *bytes, size_t size) {
    a->head = bytes, a->head_size = size, a->sent = 0, a->middle = 0, a->tail_size = 0;
    push(a);
}

static void release(struct association *a) {
    a->state = RELEASING;
    say(a, release_rq, sizeof release_rq);
}

static void send_object(struct association *a) {
    a->message_id++;
    build_store(a);
    a->state = STORING;
    a->started_ns = now_ns();
    a->tail = tail, a->tail_size = tail_size, a->middle = middle_bytes;
    a->head = a->store, a->head_size = a->store_size, a->sent = 0;
    push(a);
}

static void send_echo(struct association *a) {
    a->message_id++;
    a->state = ECHOING;
    say(a, a->echo, build_echo(a->echo, a->message_id));
}

static void open_association(struct association *a) {
    struct sockaddr_in node = {.sin_family = AF_INET, .sin_port = htons(wish.port), .sin_addr = next_address()};
    int on = 1;
    a->in_used = a->command_used = a->message_id = 0;
    a->started_ns = now_ns();
    a->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (a->fd < 0) fail("socket");
    setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (wish.source) {
        struct sockaddr_in ours = {.sin_family = AF_INET};
        if (inet_pton(AF_INET, wish.source, &ours.sin_addr) != 1 || bind(a->fd, (void *)&ours, sizeof ours) < 0) fail("--source");
    }
    if (connect(a->fd, (void *)&node, sizeof node) < 0 && errno != EINPROGRESS) {
        error("connect", strerror(errno));
        close(a->fd);
        return;
    }
    a->state = CONNECTING;
    opened++;
    watch(a, true, EPOLL_CTL_ADD);
}

/* ---- what is received ---- */

/* Check an A-ASSOCIATE-AC: every context that was proposed is accepted, a maximum length is there.  NULL: it is good. */
static const char *read_accept(const uint8_t *body, uint32_t size, uint32_t *length) {
    int accepted = 0;
    bool has_length = false;
    for (uint32_t at = ASSOCIATE_FIXED - PDU_HEADER; at + 4 <= size; at += 4 + be16(body + at + 2)) {
        uint32_t item = be16(body + at + 2);
        if (at + 4 + item > size) return "item overruns the associate answer";
        if (body[at] == 0x21 && item >= 4 && body[at + 6] == 0) accepted++;
        if (body[at] != 0x50) continue;
        for (uint32_t i = at + 4; i + 4 <= at + 4 + item; i += 4 + be16(body + i + 2))
            if (body[i] == 0x51 && be16(body + i + 2) == 4) *length = be32(body + i + 4), has_length = true;
    }
    if (accepted != wish.contexts) return "not every context was accepted";
    return has_length ? NULL : "no maximum length in the associate answer";
}

static void on_accept(struct association *a, const uint8_t *body, uint32_t size) {
    uint32_t length = 0;
    const char *wrong = read_accept(body, size, &length);
    if (wish.mode == REJECT) wrong = "accepted, but was to be rejected";
    if (!wrong && block && length != agreed_length) wrong = "nodes announce different maximum lengths";
    if (wrong) return give_up(a, "A-ASSOCIATE-AC", wrong);
    result.associations++;
    a->state = OPEN;
    if (wish.mode == ASSOCIATE) return release(a);
    if (wish.mode == ECHO) return send_echo(a);
    if (wish.mode != STORE) return;
    agreed_length = length;
    if (!block) lay_out_objects();
    if (!a->store && !(a->store = malloc(2 * COMMAND_ROOM + pdu_size))) fail("malloc");
}

static void on_reject(struct association *a, const uint8_t *body, uint32_t size) {
    char reason[16] = "";
    if (size == 4) snprintf(reason, sizeof reason, "%d,%d,%d", body[1], body[2], body[3]);
    if (wish.mode != REJECT || size != 4) return give_up(a, "A-ASSOCIATE-RJ", reason);
    memcpy(result.reject, reason, sizeof reason);
    result.rejected++;
    sample(a->started_ns);
    hang_up(a);
}

static void on_response(struct association *a) {
    int expected = a->state == STORING ? C_STORE_RSP : C_ECHO_RSP;
    size_t size = a->command_used;
    a->command_used = 0;
    if (a->state != STORING && a->state != ECHOING) return give_up(a, "response", "without a request");
    if (a->sent < a->head_size + a->middle + a->tail_size) return give_up(a, "response", "before the request was whole");
    if (find_us(a->command, size, COMMAND_FIELD) != expected) return give_up(a, "response", "to another command");
    if (find_us(a->command, size, RESPONDED_TO) != a->message_id) return give_up(a, "response", "with a wrong message id");
    if (find_us(a->command, size, STATUS) != 0) return give_up(a, "response", "status is not success");
    if (a->state == ECHOING) return release(a);
    sample(a->started_ns);
    result.objects++, a->objects++;
    result.bytes += wish.object_bytes;
    if (draining || (wish.total_bytes && result.bytes >= wish.total_bytes)) return release(a);
    send_object(a);
}

/* Take the fragments of a response, which has no data set, out of one P-DATA-TF. */
static void on_data(struct association *a, const uint8_t *body, uint32_t size) {
    int context = wish.mode == ECHO ? ECHO_CONTEXT : CT_CONTEXT;
    for (uint32_t at = 0; at < size;) {
        uint32_t length = size - at < PDV_HEADER ? 0 : be32(body + at);
        if (length < 2 || length > size - at - 4) return give_up(a, "P-DATA", "wrong PDV length");
        if (body[at + 4] != context || !(body[at + 5] & IS_COMMAND)) return give_up(a, "P-DATA", "not a response in its context");
        if (length - 2 > COMMAND_ROOM - a->command_used) return give_up(a, "P-DATA", "response too long");
        memcpy(a->command + a->command_used, body + at + PDV_HEADER, length - 2);
        a->command_used += length - 2;
        if (body[at + 5] & IS_LAST) {
            if (at + 4 + length != size) return give_up(a, "P-DATA", "more after the response");
            return on_response(a);
        }
        at += 4 + length;
    }
}

static void on_pdu(struct association *a, const uint8_t *pdu, uint32_t size) {
    char text[32];
    if (pdu[0] == AC && a->state == ASSOCIATING) return on_accept(a, pdu + PDU_HEADER, size);
    if (pdu[0] == RJ && a->state == ASSOCIATING) return on_reject(a, pdu + PDU_HEADER, size);
    if (pdu[0] == DATA) return on_data(a, pdu + PDU_HEADER, size);
    if (pdu[0] == RELEASE_RP && a->state == RELEASING) {
        if (wish.mode != STORE) sample(a->started_ns);
        return hang_up(a);
    }
    snprintf(text, sizeof text, "type %d in state %d", pdu[0], a->state);
    give_up(a, pdu[0] == ABORT ? "A-ABORT" : "unexpected PDU", text);
}

/* Take what came, once; says whether there was something. */
static bool take(struct association *a) {
    uint8_t *end = a->in + a->in_used;
    size_t room = IN_ROOM - a->in_used;
    ssize_t got = a->tls ? tls_receive(a->tls, end, room) : recv(a->fd, end, room, 0);
    if (got < 0 && errno == EAGAIN) return false;
    if (got <= 0) return give_up(a, "connection ended", got ? strerror(errno) : "closed by the other side"), false;
    a->in_used += got;
    unsigned at = 0;
    while (a->state != CLOSED && a->in_used - at >= PDU_HEADER) {
        uint32_t size = be32(a->in + at + 2);
        if (size > IN_ROOM - PDU_HEADER) return give_up(a, "PDU", "longer than any answer to us"), false;
        if (a->in_used - at < PDU_HEADER + size) break;
        on_pdu(a, a->in + at, size);
        at += PDU_HEADER + size;
    }
    memmove(a->in, a->in + at, a->in_used - at);
    a->in_used -= at;
    return true;
}

static void on_readable(struct association *a) {
    while (a->state != CLOSED && take(a) && a->tls) continue; /* OpenSSL may hold more, of which epoll knows nothing */
}

static void secure(struct association *a) {
    int done = tls_shake_hands(a->tls);
    if (done < 0) return give_up(a, "TLS", tls_reason());
    if (!done) return watch(a, a->tls->out_used, EPOLL_CTL_MOD);
    a->state = ASSOCIATING;
    say(a, request, request_size);
}

static void on_event(struct association *a, uint32_t events) {
    if (a->state == CLOSED) return;
    if (a->state == CONNECTING) {
        int code = 0;
        socklen_t size = sizeof code;
        getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &code, &size);
        if (code) return give_up(a, "connect", strerror(code));
        if (wish.tls && !(a->tls = tls_open(a->fd))) fail("tls_open");
        a->state = wish.tls ? SECURING : ASSOCIATING;
        if (!wish.tls) return say(a, request, request_size);
    }
    if (a->state == SECURING) return secure(a);
    if (events & EPOLLOUT) push(a);
    if (a->state != CLOSED && events & ~EPOLLOUT) on_readable(a);
}

/* ---- the whole load ---- */

/* Serve events for at most `wait_ms`; says whether a line came on standard input. */
static bool turn(int wait_ms) {
    struct epoll_event ready[256];
    bool told = false;
    int count = epoll_wait(poller, ready, 256, wait_ms);
    for (int i = 0; i < count; i++) {
        if (ready[i].data.ptr) on_event(ready[i].data.ptr, ready[i].events);
        else told = true;
    }
    return told;
}

static int count_in(enum state state) {
    int count = 0;
    for (int i = 0; i < slots; i++) count += all[i].state == state;
    return count;
}

/* Open all slots, a few at a time, and wait until all are associated or one failed. */
static void open_all(void) {
    uint64_t end_ns = now_ns() + wish.patience_s * 1e9;
    int next = 0;
    while (!result.errors && (next < slots || result.associations < (unsigned)slots)) {
        while (next < slots && next - (int)result.associations < OPENING_AT_ONCE) open_association(&all[next++]);
        turn(100);
        if (now_ns() > end_ns) return error("patience ended", "while opening associations");
    }
}

static void finish(void) {
    uint64_t end_ns = now_ns() + wish.patience_s * 1e9;
    while (opened && now_ns() < end_ns) turn(100);
    if (opened) error("patience ended", "some associations did not finish");
}

static void release_idle(void) {
    for (int i = 0; i < slots; i++)
        if (all[i].state == OPEN) release(&all[i]);
}

static double run_store(void) {
    uint64_t start_ns, last_ns;
    open_all();
    start_ns = last_ns = now_ns();
    uint64_t end_ns = start_ns + wish.seconds * 1e9, limit_ns = end_ns + wish.patience_s * 1e9, objects = 0;
    for (int i = 0; i < slots && !result.errors; i++) send_object(&all[i]);
    while (count_in(STORING) && now_ns() < limit_ns) {
        turn(100);
        if (result.objects != objects) objects = result.objects, last_ns = now_ns();
        if (result.errors || now_ns() >= end_ns) draining = true;
    }
    release_idle();
    finish();
    return (last_ns - start_ns) / 1e9;
}

static double run_cycles(void) {
    uint64_t start_ns = now_ns(), end_ns = start_ns + wish.seconds * 1e9, started = 0;
    while (now_ns() < end_ns && result.errors < 100) {
        for (int i = 0; i < slots; i++) {
            if (all[i].state != CLOSED || (wish.count && started >= (unsigned)wish.count)) continue;
            open_association(&all[i]);
            started++;
        }
        if (wish.count && started >= (unsigned)wish.count && !opened) break;
        turn(100);
    }
    double seconds = (now_ns() - start_ns) / 1e9;
    uint64_t within = result.samples;
    finish();
    result.associations = within; /* what was released within the time counts; what is late was still checked */
    return seconds;
}

static double run_idle(void) {
    uint64_t start_ns = now_ns();
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    open_all();
    printf("{\"mode\": \"idle\", \"open\": %d, \"request_bytes\": %zu, \"seconds\": %.3f, \"errors\": %lu, \"first_error\": \"%s\"}\n",
           count_in(OPEN), request_size, (now_ns() - start_ns) / 1e9, result.errors, result.first_error);
    fflush(stdout);
    start_ns = now_ns();
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0) fail("standard input must be a pipe");
    while (!turn(1000)) continue;
    epoll_ctl(poller, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    double seconds = (now_ns() - start_ns) / 1e9;
    release_idle();
    finish();
    return seconds;
}

static double run_reject(void) {
    uint64_t start_ns = now_ns(), end_ns = start_ns + wish.seconds * 1e9, started = 0;
    while (now_ns() < end_ns && result.errors < 100) {
        double due = (now_ns() - start_ns) / 1e9 * wish.rate;
        for (int i = 0; i < slots && started < due; i++) {
            if (all[i].state != CLOSED) continue;
            open_association(&all[i]);
            started++;
        }
        double next_s = (started + 1) / wish.rate - (now_ns() - start_ns) / 1e9;
        turn(next_s > 0.001 ? next_s * 1000 : 1);
    }
    double seconds = (now_ns() - start_ns) / 1e9;
    finish();
    return seconds;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile_ms(double part) {
    return result.samples ? latency[(uint32_t)(part * (result.samples - 1))] / 1e4 : 0;
}

static void print_result(double seconds) {
    qsort(latency, result.samples, sizeof *latency, ascending);
    printf("{\"mode\": \"%s\", \"seconds\": %.6f, \"associations\": %lu, \"objects\": %lu, \"bytes\": %lu, \"rejected\": %lu, "
           "\"reject\": \"%s\", \"errors\": %lu, \"first_error\": \"%s\", \"cpu_s\": %.3f, \"pdu_bytes\": %zu, \"p50_ms\": %.4f, "
           "\"p90_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f}\n",
           mode_names[wish.mode], seconds, result.associations, result.objects, result.bytes, result.rejected, result.reject,
           result.errors, result.first_error, cpu_s(), pdu_size, percentile_ms(0.5), percentile_ms(0.9), percentile_ms(0.99),
           percentile_ms(1));
    fflush(stdout);
}

static bool read_options(int argc, char **argv) {
    static const struct option options[] = {
        {"port", 1, 0, 'p'}, {"associations", 1, 0, 'n'}, {"object-bytes", 1, 0, 'o'}, {"seconds", 1, 0, 's'},
        {"total-bytes", 1, 0, 't'}, {"count", 1, 0, 'c'}, {"contexts", 1, 0, 'x'}, {"rate", 1, 0, 'r'}, {"address", 1, 0, 'a'},
        {"called", 1, 0, 'e'}, {"calling", 1, 0, 'i'}, {"max-length", 1, 0, 'm'}, {"patience", 1, 0, 'w'}, {"tls", 1, 0, 'T'},
        {"source", 1, 0, 'S'}, {0}};
    int option, mode = argc > 1 ? 0 : 5;
    while (mode < 5 && strcmp(argv[1], mode_names[mode])) mode++;
    if (mode == 5) return false;
    wish.mode = mode;
    optind = 2;
    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) switch (option) {
        case 'p': wish.port = atoi(optarg); break;
        case 'n': wish.associations = atoi(optarg); break;
        case 'o': wish.object_bytes = (strtoull(optarg, NULL, 10) + 1) & ~1ull; break;
        case 's': wish.seconds = atof(optarg); break;
        case 't': wish.total_bytes = strtoull(optarg, NULL, 10); break;
        case 'c': wish.count = atoi(optarg); break;
        case 'x': wish.contexts = atoi(optarg); break;
        case 'r': wish.rate = atof(optarg); break;
        case 'a': wish.address = optarg; break;
        case 'e': wish.called = optarg; break;
        case 'i': wish.calling = optarg; break;
        case 'm': wish.max_length = atoi(optarg); break;
        case 'S': wish.source = optarg; break;
        case 'T': wish.tls = optarg; break;
        case 'w': wish.patience_s = atof(optarg); break;
        default: return false;
    }
    return read_addresses(wish.address) && wish.port > 0 && wish.associations > 0 && wish.contexts >= 2 && wish.contexts <= 128 && wish.max_length >= 4096
           && wish.object_bytes >= 1024 && wish.object_bytes < 0xFFFFFF00u && wish.rate > 0;
}

int main(int argc, char **argv) {
    static double (*const run[])(void) = {run_store, run_cycles, run_cycles, run_idle, run_reject};
    if (!read_options(argc, argv)) {
        fprintf(stderr, "dicom_load store|associate|echo|idle|reject --port P ...: dicom_load.c lists the options.\n"
                        "IPv4 addresses, 2 to 128 contexts, a maximum length from 4096, objects from 1024 bytes to 4 GiB\n");
        return 2;
    }
    if (wish.tls && !tls_prepare(wish.tls)) {
        fprintf(stderr, "dicom_load: no certificate can be read from %s\n", wish.tls);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    allow_all_descriptors();
    slots = wish.mode == REJECT ? REJECTS_AT_ONCE : wish.mode == ECHO ? 1 : wish.associations;
    all = calloc(slots, sizeof *all), latency = calloc(MAX_SAMPLES, sizeof *latency);
    if (!all || !latency) fail("calloc");
    for (int i = 0; i < slots; i++) all[i].number = i;
    poller = epoll_create1(EPOLL_CLOEXEC);
    build_request();
    print_result(run[wish.mode]());
    return result.errors ? 3 : 0;
}
