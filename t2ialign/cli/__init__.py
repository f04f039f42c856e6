"""One file a command: its options, and the call that does the work."""
