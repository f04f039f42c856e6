"""One scorer a file: it declares the names that it serves in NAMES."""
