"""What train rewrite_sft and train rewrite_grpo share: TRL over a rewriter of prompts."""
