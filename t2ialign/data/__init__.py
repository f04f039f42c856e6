"""The data of training: images, preference pairs, prompts, and the cache that encodes them once."""
