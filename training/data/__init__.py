"""Data sets, their splits, and episodes of them."""
