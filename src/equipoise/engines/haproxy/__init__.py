"""The engine for the web, documents and plain TCP: HAProxy, configured, started, told and read by us."""
