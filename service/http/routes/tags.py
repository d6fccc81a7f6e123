"""ETags: whether a client has already what it asks for."""

from fastapi import Request


def at_hand(request: Request, tag: str) -> bool:
    """Tell whether If-None-Match names a tag, or anything at all (RFC 9110, section 13.1.2)."""
    sent = ",".join(request.headers.getlist("if-none-match"))
    return sent.strip() == "*" or tag in sent
