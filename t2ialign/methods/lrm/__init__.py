"""train lrm: a latent reward model."""
