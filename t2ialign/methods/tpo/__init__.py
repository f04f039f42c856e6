"""train tpo: preferences between prompts of one image (TDPO, TKTO), without pairs and without a reward."""
