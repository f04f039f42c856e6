"""What the public functions do, a subject a file: from what the user hands over to a result and its files."""
