/* What load generator and sink share of DICOM on the wire: integers, items, command sets, PDU headers, counters.
 *
 * Leaves out data sets (the generator writes one; the sink only counts its bytes) and everything but Implicit VR LE.
 * Source: DICOM PS3.8 section 9.3 (PDUs, big endian); PS3.7 section 6.3.1 and annex E (command sets, little endian).
 */
#ifndef DICOM_WIRE_H
#define DICOM_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { RQ = 1, AC = 2, RJ = 3, DATA = 4, RELEASE_RQ = 5, RELEASE_RP = 6, ABORT = 7 };
enum { PDU_HEADER = 6, PDV_HEADER = 6, ASSOCIATE_FIXED = 74 };
enum { IS_COMMAND = 1, IS_LAST = 2 }; /* message control header, PS3.8 annex E.2 */
enum { C_STORE_RQ = 0x0001, C_STORE_RSP = 0x8001, C_ECHO_RQ = 0x0030, C_ECHO_RSP = 0x8030, NO_DATA_SET = 0x0101 };
enum { SOP_CLASS = 0x0002, COMMAND_FIELD = 0x0100, MESSAGE_ID = 0x0110, RESPONDED_TO = 0x0120, PRIORITY = 0x0700,
       DATA_SET_TYPE = 0x0800, STATUS = 0x0900, SOP_INSTANCE = 0x1000 };

#define APPLICATION_CONTEXT "1.2.840.10008.3.1.1.1"
#define VERIFICATION "1.2.840.10008.1.1"
#define CT_IMAGE_STORAGE "1.2.840.10008.5.1.4.1.1.2"
#define IMPLICIT_LE "1.2.840.10008.1.2"
#define EXPLICIT_LE "1.2.840.10008.1.2.1"
#define IMPLEMENTATION "2.25.154702836941852037" /* derived from a UUID, PS3.5 annex B: no registration needed */
#define IMPLEMENTATION_VERSION "EQUIPOISE_BENCH"

static inline void put_be16(uint8_t *at, unsigned value) { at[0] = value >> 8, at[1] = value; }
static inline void put_be32(uint8_t *at, uint32_t value) { put_be16(at, value >> 16), put_be16(at + 2, value & 0xFFFF); }
static inline void put_le16(uint8_t *at, unsigned value) { at[0] = value, at[1] = value >> 8; }
static inline void put_le32(uint8_t *at, uint32_t value) { put_le16(at, value & 0xFFFF), put_le16(at + 2, value >> 16); }
static inline uint16_t be16(const uint8_t *at) { return at[0] << 8 | at[1]; }
static inline uint32_t be32(const uint8_t *at) { return (uint32_t)be16(at) << 16 | be16(at + 2); }
static inline uint16_t le16(const uint8_t *at) { return at[1] << 8 | at[0]; }
static inline uint32_t le32(const uint8_t *at) { return (uint32_t)le16(at + 2) << 16 | le16(at); }

static inline size_t put_pdu_header(uint8_t *at, int type, uint32_t length) {
    at[0] = type, at[1] = 0;
    put_be32(at + 2, length);
    return PDU_HEADER;
}

/* A P-DATA-TF that holds one presentation data value of `size` bytes; they follow. */
static inline size_t put_data_header(uint8_t *at, int context, int control, uint32_t size) {
    put_pdu_header(at, DATA, PDV_HEADER + size);
    put_be32(at + PDU_HEADER, size + 2);
    at[PDU_HEADER + 4] = context, at[PDU_HEADER + 5] = control;
    return PDU_HEADER + PDV_HEADER;
}

/* An item of an associate PDU, PS3.8 section 9.3.2.1. */
static inline size_t put_item(uint8_t *at, int type, const void *value, unsigned size) {
    at[0] = type, at[1] = 0;
    put_be16(at + 2, size);
    memmove(at + 4, value, size);
    return 4 + size;
}

static inline size_t put_user_information(uint8_t *at, uint32_t max_length) {
    uint8_t number[4], inside[128];
    put_be32(number, max_length);
    size_t size = put_item(inside, 0x51, number, 4);
    size += put_item(inside + size, 0x52, IMPLEMENTATION, sizeof IMPLEMENTATION - 1);
    size += put_item(inside + size, 0x55, IMPLEMENTATION_VERSION, sizeof IMPLEMENTATION_VERSION - 1);
    return put_item(at, 0x50, inside, size);
}

/* An element in Implicit VR little endian; UIDs are padded with NUL to an even length, PS3.5 section 9.1. */
static inline size_t put_element(uint8_t *at, unsigned group, unsigned element, const void *value, uint32_t size) {
    put_le16(at, group), put_le16(at + 2, element), put_le32(at + 4, size + (size & 1));
    memcpy(at + 8, value, size);
    if (size & 1) at[8 + size] = 0;
    return 8 + size + (size & 1);
}

static inline size_t put_us(uint8_t *at, unsigned element, unsigned value) {
    uint8_t number[2];
    put_le16(number, value);
    return put_element(at, 0, element, number, 2);
}

/* Put the group length in front of the `size` bytes of elements that stand at `at + 12`; returns the whole size. */
static inline size_t close_command(uint8_t *at, size_t size) {
    uint8_t number[4];
    put_le32(number, size);
    return put_element(at, 0, 0, number, 4) + size;
}

/* Find an element of a command set; NULL when it is missing or the set is cut. */
static inline const uint8_t *find_element(const uint8_t *set, size_t size, unsigned element, uint32_t *found_size) {
    for (size_t at = 0; at + 8 <= size;) {
        uint32_t length = le32(set + at + 4);
        if (length > size - at - 8) return NULL;
        if (le16(set + at) == 0 && le16(set + at + 2) == element) {
            *found_size = length;
            return set + at + 8;
        }
        at += 8 + length;
    }
    return NULL;
}

/* The value of a US element, or -1. */
static inline int find_us(const uint8_t *set, size_t size, unsigned element) {
    uint32_t length;
    const uint8_t *value = find_element(set, size, element, &length);
    return value && length == 2 ? le16(value) : -1;
}

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static inline double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static inline void allow_all_descriptors(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

#endif
