"""The embedded world: a small real text-to-image problem in which truth can be computed."""
