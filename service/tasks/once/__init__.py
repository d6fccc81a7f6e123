"""Doing what a request asks for once, however often its client sends it."""
