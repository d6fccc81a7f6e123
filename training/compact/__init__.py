"""How the packaged checkpoint is made: distil an image tower, then teach motions and words."""
