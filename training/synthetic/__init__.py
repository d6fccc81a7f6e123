"""Synthetic actions, and labels that differ in order alone."""
