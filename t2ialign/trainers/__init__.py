"""One trainer a file, on one shared loop."""
