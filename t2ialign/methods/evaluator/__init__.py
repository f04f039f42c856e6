"""train evaluator: heads that judge key points."""
