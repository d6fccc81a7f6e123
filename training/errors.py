"""What a command of `training` cannot work with: one sentence, told before exit code 2."""


class InputError(Exception):
    """An argument, a file or a folder does not fit; the message says which, and the remedy."""
