"""Rows of files as users have them: text, CSV, JSON, parquet, and the files below a folder."""
