"""train reward: a scorer fitted to preferences."""
