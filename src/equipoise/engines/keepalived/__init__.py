"""The engine that has two machines take over each other's addresses: keepalived, which speaks VRRP."""
