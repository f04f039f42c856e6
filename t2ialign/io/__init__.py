"""Files that survive a kill: journals, atomic writes, locks, hashes."""
