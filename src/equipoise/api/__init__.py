"""The supervisor's HTTP interface, /api/v1 on a Unix socket."""
