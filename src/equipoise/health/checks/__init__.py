"""One file a check.  A new file is found, not listed."""
