"""Model families, one a file: each is a `Policy` over the networks of one diffusers pipeline."""
