"""How tasks stand, told to whoever watches them."""
