"""Language models that answer in text: local weights or an endpoint."""
