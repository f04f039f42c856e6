"""The work of the public functions, one subject a file: from the arguments to a result and its files."""
