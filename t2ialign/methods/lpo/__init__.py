"""train lpo: step-level latent preference optimisation (Zhang et al. 2025)."""
