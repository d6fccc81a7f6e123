"""Episodes answered, counted and compared."""
