/* Where connections go: one address, or several in turn, as clients are spread that know all nodes.
 *
 * Leaves out names: addresses are written out, IPv4.
 */
#ifndef ADDRESSES_H
#define ADDRESSES_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>

enum { MAX_ADDRESSES = 16 };
static struct in_addr addresses[MAX_ADDRESSES];
static unsigned address_count;

/* Read "192.0.2.1,192.0.2.2"; false where that cannot be. */
static inline bool read_addresses(const char *list) {
    char copy[MAX_ADDRESSES * INET_ADDRSTRLEN], *rest = copy, *one;
    if (strlen(list) >= sizeof copy) return false;
    strcpy(copy, list);
    for (address_count = 0; (one = strsep(&rest, ",")); address_count++)
        if (address_count == MAX_ADDRESSES || inet_pton(AF_INET, one, &addresses[address_count]) != 1) return false;
    return true;
}

static inline struct in_addr next_address(void) {
    static unsigned next;
    return addresses[next++ % address_count];
}

#endif
