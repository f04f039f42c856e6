"""train sft: fine-tuning on liked images alone."""
