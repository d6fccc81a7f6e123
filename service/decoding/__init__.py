"""The pool of sandboxed decoders."""
