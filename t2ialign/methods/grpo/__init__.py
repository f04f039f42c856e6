"""train grpo: online reinforcement learning with any reward, by sampled paths or by clean images alone."""
