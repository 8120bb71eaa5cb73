/* TLS 1.3 for senders and receivers of HL7: reading and writing as with system calls, plain where there is no SSL.
 *
 * Leaves out names in certificates, client certificates and resumption: a measurement has one peer, and it is ours.
 * Source: RFC 8446; OpenSSL's SSL_read(3), SSL_get_error(3).
 */
#ifndef HL7_TLS_H
#define HL7_TLS_H

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <sys/socket.h>

/* Trust `file` alone, or where it `serves`, show the certificate in it, whose key stands there too.  NULL: unreadable. */
static SSL_CTX *tls_context(const char *file, bool serves) {
    SSL_CTX *context = SSL_CTX_new(serves ? TLS_server_method() : TLS_client_method());
    if (!context) return NULL;
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (serves) {
        bool good = SSL_CTX_use_certificate_chain_file(context, file) == 1;
        return good && SSL_CTX_use_PrivateKey_file(context, file, SSL_FILETYPE_PEM) == 1 ? context : NULL;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    return SSL_CTX_load_verify_file(context, file) ? context : NULL;
}

/* The TLS of one connection; its handshake is the first thing that reading or writing does. */
static SSL *tls_open(SSL_CTX *context, int fd, bool serves) {
    SSL *ssl = SSL_new(context);
    if (!ssl || !SSL_set_fd(ssl, fd)) return NULL;
    if (serves) SSL_set_accept_state(ssl);
    else SSL_set_connect_state(ssl);
    return ssl;
}

/* Turn OpenSSL's answer into that of a system call: -1 with EAGAIN, 0 at the end, -1 with EPROTO where TLS failed. */
static ssize_t tls_outcome(SSL *ssl, int answer) {
    if (answer > 0) return answer;
    int code = SSL_get_error(ssl, answer), why = errno;
    if (code == SSL_ERROR_ZERO_RETURN) return 0;
    if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) errno = EAGAIN;
    else errno = code == SSL_ERROR_SYSCALL && why ? why : EPROTO;
    return -1;
}

static ssize_t line_read(int fd, SSL *ssl, void *at, size_t room) {
    if (!ssl) return recv(fd, at, room, 0);
    ERR_clear_error(), errno = 0;
    return tls_outcome(ssl, SSL_read(ssl, at, (int)room));
}

static ssize_t line_write(int fd, SSL *ssl, const void *at, size_t size) {
    if (!ssl) return send(fd, at, size, MSG_NOSIGNAL);
    ERR_clear_error(), errno = 0;
    return tls_outcome(ssl, SSL_write(ssl, at, (int)size));
}

#endif
