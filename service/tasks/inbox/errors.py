"""Why a remembered query cannot be answered."""

from service.errors import RequestError


class QueryNotFoundError(RequestError):
    """The task remembers no such query: it was dropped, or its time is over."""

    code = "query-not-found"


class QueryAnsweredError(RequestError):
    """Somebody has said already what the query is."""

    code = "query-answered"
