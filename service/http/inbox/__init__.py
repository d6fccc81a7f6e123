"""Remembered queries, as the API shows and takes them."""
