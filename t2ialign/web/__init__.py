"""HTML pages and what they are made of: charts, sheets of images, markup."""
