"""train dpo: Diffusion-DPO (Wallace et al. 2024) and its relatives."""
