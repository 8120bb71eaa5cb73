/* Fill a balancer's map of flows: the first packet of each flow, then its second one, which makes the flow last.
 *
 * layer4_flows INTERFACE MAC ADDRESS PORT FLOWS: to ADDRESS:PORT of the machine that has MAC, from sources that nobody
 * has (RFC 2544 C.2.2).  The checksum of TCP is left out: the balancer hands packets on as they are, and the node throws
 * them away before it answers.  Prints the packets sent and the seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, PORTS = 50000, FIRST_PORT = 10000, FIRST_SOURCE = 0xc6130001 /* 198.19.0.1 */, MAX_FLOWS = 5000000 };
static struct __attribute__((packed)) frame {
    struct ether_header ether;
    struct iphdr ip;
    struct tcphdr tcp;
} frames[BATCH];

static void fail(const char *what) {
    fprintf(stderr, "layer4_flows: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* RFC 791: the one's complement of the sum of the header's halves. */
static uint16_t checksum(const struct iphdr *header) {
    uint16_t halves[sizeof *header / 2];
    uint32_t sum = 0;
    memcpy(halves, header, sizeof halves);
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) sum += halves[i];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void prepare(const uint8_t *mac, struct in_addr to, uint16_t port) {
    for (int i = 0; i < BATCH; i++) {
        memcpy(frames[i].ether.ether_dhost, mac, ETH_ALEN);
        frames[i].ether.ether_shost[0] = 2; /* locally administered: nobody's */
        frames[i].ether.ether_shost[5] = 9;
        frames[i].ether.ether_type = htons(ETH_P_IP);
        frames[i].ip = (struct iphdr){.ihl = 5, .version = 4, .ttl = 64, .protocol = IPPROTO_TCP, .daddr = to.s_addr};
        frames[i].ip.tot_len = htons(sizeof frames->ip + sizeof frames->tcp);
        frames[i].tcp = (struct tcphdr){.dest = htons(port), .doff = 5, .window = htons(1000)};
    }
}

static void send_all(int out, long flows, bool first) {
    struct iovec parts[BATCH];
    struct mmsghdr batch[BATCH] = {0};
    for (long flow = 0; flow < flows;) {
        unsigned count = 0;
        for (; count < BATCH && flow < flows; count++, flow++) {
            struct frame *one = &frames[count];
            one->ip.saddr = htonl((uint32_t)(FIRST_SOURCE + flow / PORTS));
            one->ip.check = 0;
            one->ip.check = checksum(&one->ip);
            one->tcp.source = htons((uint16_t)(FIRST_PORT + flow % PORTS));
            one->tcp.syn = first;
            one->tcp.ack = !first;
            parts[count] = (struct iovec){one, sizeof *one};
            batch[count].msg_hdr = (struct msghdr){.msg_iov = &parts[count], .msg_iovlen = 1};
        }
        for (unsigned sent = 0; sent < count;) {
            int now = sendmmsg(out, batch + sent, count - sent, 0);
            if (now < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR) fail("send");
            if (now > 0) sent += (unsigned)now;
            else usleep(1000);
        }
    }
}

int main(int count, char **words) {
    struct in_addr to;
    unsigned byte[ETH_ALEN];
    uint8_t mac[ETH_ALEN];
    long flows = count == 6 ? atol(words[5]) : 0;
    if (flows < 1 || flows > MAX_FLOWS || inet_pton(AF_INET, words[3], &to) != 1 ||
        sscanf(words[2], "%x:%x:%x:%x:%x:%x", byte, byte + 1, byte + 2, byte + 3, byte + 4, byte + 5) != ETH_ALEN) {
        fprintf(stderr, "usage: layer4_flows INTERFACE MAC ADDRESS PORT FLOWS; at most %d flows\n", MAX_FLOWS);
        return 2;
    }
    for (int i = 0; i < ETH_ALEN; i++) mac[i] = (uint8_t)byte[i];
    struct sockaddr_ll from = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP)};
    from.sll_ifindex = (int)if_nametoindex(words[1]);
    int out = socket(AF_PACKET, SOCK_RAW, 0);
    if (out < 0 || !from.sll_ifindex || bind(out, (struct sockaddr *)&from, sizeof from) < 0) fail(words[1]);
    prepare(mac, to, (uint16_t)atoi(words[4]));
    double begun_s = now_s();
    send_all(out, flows, true);
    send_all(out, flows, false);
    printf("{\"packets\": %ld, \"seconds\": %.3f}\n", 2 * flows, now_s() - begun_s);
    return 0;
}
