"""GlobalPointer: spans by multi-label scores, and their symmetric divergence."""
