/* TLS 1.3 for the load generator: one certificate authority to trust, non-blocking, what is written gathered into large sends.
 *
 * Leaves out names in certificates, client certificates and resumption: a measurement has one peer, and it is ours.
 * Source: RFC 8446; OpenSSL's SSL_write(3), SSL_get_error(3), BIO_meth_new(3).
 */
#ifndef DICOM_TLS_H
#define DICOM_TLS_H

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { TLS_OUT_ROOM = 1 << 18 }; /* sixteen records in one send: the generator must not be what is slow */

struct tls {
    SSL *ssl;
    int fd;
    bool broken; /* the socket failed, which OpenSSL tells no details of */
    size_t out_used, out_sent;
    uint8_t out[TLS_OUT_ROOM];
};

static SSL_CTX *tls_context;
static BIO_METHOD *tls_socket;

/* Send what was gathered; false while some of it is left. */
static bool tls_flush(struct tls *tls) {
    while (tls->out_sent < tls->out_used) {
        ssize_t sent = send(tls->fd, tls->out + tls->out_sent, tls->out_used - tls->out_sent, MSG_NOSIGNAL);
        if (sent < 0) {
            tls->broken = errno != EAGAIN;
            return false;
        }
        tls->out_sent += sent;
    }
    tls->out_used = tls->out_sent = 0;
    return true;
}

static int tls_gather(BIO *bio, const char *bytes, int size) {
    struct tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if ((size_t)size > TLS_OUT_ROOM - tls->out_used && !tls_flush(tls)) {
        if (!tls->broken) BIO_set_retry_write(bio);
        return -1;
    }
    memcpy(tls->out + tls->out_used, bytes, size); /* a record is far shorter than the room */
    tls->out_used += size;
    return size;
}

static int tls_take(BIO *bio, char *bytes, int room) {
    struct tls *tls = BIO_get_data(bio);
    ssize_t got = recv(tls->fd, bytes, room, 0);
    BIO_clear_retry_flags(bio);
    if (got < 0 && errno == EAGAIN) BIO_set_retry_read(bio);
    else if (got < 0) tls->broken = true;
    return got;
}

static long tls_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH; /* push() does it: also after many records */
}

/* Trust what `authority` signed, and nothing else.  False: it cannot be read. */
static bool tls_prepare(const char *authority) {
    tls_context = SSL_CTX_new(TLS_client_method());
    tls_socket = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "gathering socket");
    if (!tls_context || !tls_socket) return false;
    BIO_meth_set_write(tls_socket, tls_gather);
    BIO_meth_set_read(tls_socket, tls_take);
    BIO_meth_set_ctrl(tls_socket, tls_control);
    SSL_CTX_set_min_proto_version(tls_context, TLS1_3_VERSION);
    SSL_CTX_set_verify(tls_context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return SSL_CTX_load_verify_file(tls_context, authority);
}

static struct tls *tls_open(int fd) {
    struct tls *tls = malloc(sizeof *tls);
    BIO *bio = BIO_new(tls_socket);
    if (!tls || !bio || !(tls->ssl = SSL_new(tls_context))) return free(tls), NULL;
    tls->fd = fd, tls->broken = false, tls->out_used = tls->out_sent = 0;
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_connect_state(tls->ssl);
    return tls;
}

static void tls_close(struct tls *tls) {
    if (SSL_is_init_finished(tls->ssl) && !tls->broken) SSL_shutdown(tls->ssl), tls_flush(tls);
    SSL_free(tls->ssl);
    free(tls);
}

/* Turn OpenSSL's answer into that of a system call: -1 with EAGAIN, 0 at the end, -1 with EPROTO where TLS failed. */
static ssize_t tls_outcome(struct tls *tls, int answer) {
    if (answer > 0) return answer;
    int code = SSL_get_error(tls->ssl, answer);
    if (code == SSL_ERROR_ZERO_RETURN) return 0;
    if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) return errno = EAGAIN, -1;
    if (code != SSL_ERROR_SYSCALL || !errno) errno = EPROTO;
    return -1;
}

static ssize_t tls_receive(struct tls *tls, uint8_t *at, size_t room) {
    ERR_clear_error(), errno = 0;
    return tls_outcome(tls, SSL_read(tls->ssl, at, room));
}

/* Encrypt and send; bytes count as sent once they are encrypted. A piece that was refused must come again as it was. */
static ssize_t tls_send(struct tls *tls, const struct iovec *pieces, int count) {
    ssize_t all = 0, sent;
    ERR_clear_error(), errno = 0;
    for (int i = 0; i < count; i++) {
        for (size_t at = 0; at < pieces[i].iov_len; at += sent, all += sent) {
            sent = tls_outcome(tls, SSL_write(tls->ssl, (uint8_t *)pieces[i].iov_base + at, pieces[i].iov_len - at));
            if (sent <= 0) return all ? all : -1;
        }
    }
    return all;
}

/* Go on with the handshake: 1 done, 0 not yet, -1 failed. */
static int tls_shake_hands(struct tls *tls) {
    ERR_clear_error(), errno = 0;
    ssize_t outcome = tls_outcome(tls, SSL_do_handshake(tls->ssl));
    int saved = errno;
    tls_flush(tls);
    return tls->broken ? -1 : outcome > 0 ? 1 : saved == EAGAIN ? 0 : -1;
}

static const char *tls_reason(void) {
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    return reason ? reason : "the connection ended";
}

#endif
