"""What the prompts of a reward are made of: English words, near misses, TIA2 suffixes."""
