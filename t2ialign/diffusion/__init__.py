"""Diffusion as pure tensor functions: the noising path, its grid, one reverse step, the sampler's loop."""
