"""Scores to probabilities and `unknown`: what was fitted, the defaults, and the evidence."""
