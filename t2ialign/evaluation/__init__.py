"""Statistics, metrics and reports that show whether a result is real."""
