"""Requests that their clients may send again: how each stands, and what was answered first."""
