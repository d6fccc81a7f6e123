"""How the packaged checkpoint is made."""
