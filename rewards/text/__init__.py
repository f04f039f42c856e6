"""Text tools of the rewards: English words, near misses, TIA2 suffixes."""
