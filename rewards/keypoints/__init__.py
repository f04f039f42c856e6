"""The 24 key points of a prompt: the taxonomy, who finds them, who judges them."""
