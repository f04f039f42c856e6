"""What training reads: pictures, preference pairs, prompts, and the cache that encodes them once."""
