"""The demo: an alignment of the toy model in rounds, measured, with a page to look at."""
