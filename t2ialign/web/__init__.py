"""HTML pages and their parts: charts, sheets of images, markup."""
