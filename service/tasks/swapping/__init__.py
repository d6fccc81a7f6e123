"""Serving another checkpoint without a stop."""
