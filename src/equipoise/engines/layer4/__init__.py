"""The engine for layer 4: direct routing and NAT by nf_tables in the kernel, rendered, applied and observed by us."""
