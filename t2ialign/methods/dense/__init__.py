"""train dense: Diffusion-DPO with temporal discounting over trajectories."""
