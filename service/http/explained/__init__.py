"""Where answers were seen, over HTTP."""
