"""What a method is made of, as frozen values: one module a slot, and the whole method."""
