"""What encoders make of a data set, computed once: its shards, who may fill them, how they are read back."""
