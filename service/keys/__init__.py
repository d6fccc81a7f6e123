"""API keys: who may ask for what, and whose tasks are theirs."""
