"""Policies: the only place that knows diffusers, peft and model families."""
