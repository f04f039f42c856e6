"""Vision-language models as judges: local weights or an endpoint."""
