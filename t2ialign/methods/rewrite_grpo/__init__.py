"""train rewrite_grpo: a rewriter of prompts that learns from rewards."""
