"""What the methods share that learn from images on disk: settings, the cache, draws, held-out rows."""
