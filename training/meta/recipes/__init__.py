"""Recipes by name: those of papers and of presets, read with changes."""
