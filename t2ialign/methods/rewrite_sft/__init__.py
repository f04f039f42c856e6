"""train rewrite_sft: a rewriter of prompts that learns from examples."""
