"""Associations as real programs write them, taken from the loopback interface, one field a line.

Source: DCMTK 3.6.7 `echoscu` and `storescp`, pynetdicom 3.0.4 `echoscu`; layout: PS3.8 tables 9-11 to 9-18.
"""

_FIXED = (
    "0001 0000"  # protocol version: bit 0, version 1; reserved
    "41524348495645202020202020202020"  # called AE "ARCHIVE", padded with spaces
    "4d4f44414c4954592020202020202020"  # calling AE "MODALITY"
    "0000000000000000000000000000000000000000000000000000000000000000"  # reserved
)
_APPLICATION_CONTEXT = (
    "10 00 0015"  # item 0x10, application context, 21 bytes
    "312e322e3834302e31303030382e332e312e312e31"  # 1.2.840.10008.3.1.1.1
)
_USER_DCMTK = (
    "50 00 003a"  # item 0x50, user information, 58 bytes
    "51 00 0004 00004000"  # maximum length 16384
    "52 00 001b 312e322e3237362e302e373233303031302e332e302e332e362e37"  # implementation class of DCMTK
    "55 00 000f 4f464649535f44434d544b5f333637"  # implementation version OFFIS_DCMTK_367
)
_VERIFICATION = "30 00 0011 312e322e3834302e31303030382e312e31"  # abstract syntax 1.2.840.10008.1.1
_IMPLICIT = "40 00 0011 312e322e3834302e31303030382e312e32"  # transfer syntax 1.2.840.10008.1.2
_EXPLICIT = "40 00 0013 312e322e3834302e31303030382e312e322e31"  # 1.2.840.10008.1.2.1
_DEFLATED = "40 00 0016 312e322e3834302e31303030382e312e322e312e3939"  # 1.2.840.10008.1.2.1.99
_BIG_ENDIAN = "40 00 0013 312e322e3834302e31303030382e312e322e32"  # 1.2.840.10008.1.2.2

ECHOSCU_RQ = bytes.fromhex(
    "01 00 000000cd"  # A-ASSOCIATE-RQ, 205 bytes follow
    + _FIXED
    + _APPLICATION_CONTEXT
    + "20 00 002e 01 00 ff 00"  # presentation context 1, 46 bytes; DCMTK writes 0xff into a reserved byte
    + _VERIFICATION
    + _IMPLICIT
    + _USER_DCMTK
)
PYNETDICOM_RQ = bytes.fromhex(
    "01 00 00000119"  # A-ASSOCIATE-RQ, 281 bytes follow
    + _FIXED
    + _APPLICATION_CONTEXT
    + "20 00 0076 01 00 00 00"  # presentation context 1, 118 bytes, one abstract and four transfer syntaxes
    + _VERIFICATION
    + _EXPLICIT
    + _IMPLICIT
    + _DEFLATED
    + _BIG_ENDIAN
    + "50 00 003e"  # user information, 62 bytes
    + "51 00 0004 00003ffe"  # maximum length 16382
    + "52 00 0020 312e322e3832362e302e312e333638303034332e392e333831312e332e302e34"  # 1.2.826.0.1.3680043.9.3811.3.0.4
    + "55 00 000e 50594e45544449434f4d5f333034"  # PYNETDICOM_304
)
STORESCP_AC = bytes.fromhex(
    "02 00 000000b8"  # A-ASSOCIATE-AC, 184 bytes follow
    + _FIXED
    + _APPLICATION_CONTEXT
    + "21 00 0019 01 00 00 00"  # context 1, 25 bytes, result 0: accepted
    + _IMPLICIT
    + _USER_DCMTK
)
HEADER_BYTES = 6
