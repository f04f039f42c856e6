"""The base of train rewrite_sft and train rewrite_grpo: TRL over a rewriter of prompts."""
