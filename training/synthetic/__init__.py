"""Clips of synthetic actions with stage sentences, and labels that differ in order alone."""
