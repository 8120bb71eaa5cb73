"""HL7 version 2 in the gateway: messages balanced one by one, each acknowledged by the receiver that took it."""
