"""The one shape of an error: RFC 9457 problem+json."""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

import service.errors as refused
from model.errors import KshotError
from service.http.head import ASKED
from service.http.schemas import BASE64_FAULT, ClipProblem, FieldProblem, Problem
from service.http.statuses import INTERNAL, ROUTE_CODES, STATUS, UNANSWERED
from service.logs import Seldom
from service.stores.errors import StoreFullError
from service.tasks.changes.errors import RevisionStaleError

MEDIA_TYPE = "application/problem+json"
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

RETRYABLE = frozenset({429, 503, 504})
# How a remedy is written in HTTP, which the errors of the use cases do not know.
HINTS: dict[type[KshotError], str] = {
    refused.DeadlineError: f" The header {TIMEOUT_HEADER} sets the time.",
    refused.DeadlineUnmetError: f" The header {TIMEOUT_HEADER} sets the time.",
    refused.NotReadyError: " The header 'Prefer: wait=20' lets a request wait.",
    refused.TooFewLabelsError: " Labels are multipart support[LABEL]=@FILE or JSON labels[].",
    refused.NoClipsError: " Clips are multipart clip=@FILE or JSON clips[].",
}
# Faults found by pydantic that have a code of their own; the first of these names the problem.
FAULTS: dict[str, type[refused.RequestError]] = {
    "extra_forbidden": refused.UnknownFieldError,
    BASE64_FAULT: refused.Base64Error,
}

SELDOM = Seldom(pause_s=10.0)  # for refusals while a part of the service is away

log = logging.getLogger("kshot.http")


def status_of(error: KshotError) -> int:
    """Look up the status of an error, clip faults by what they agree on."""
    if isinstance(error, refused.ClipsRefusedError):
        statuses = {status_of(fault.error) for fault in error.clips}
        return statuses.pop() if len(statuses) == 1 else STATUS[type(error)]
    return STATUS[type(error)]


def code_of(error: KshotError) -> str:
    """Look up the stable code of an error, clip faults by what they agree on."""
    if isinstance(error, refused.ClipsRefusedError):
        codes = {fault.error.code for fault in error.clips}
        return codes.pop() if len(codes) == 1 else error.code
    return INTERNAL if status_of(error) == 500 and type(error) in UNANSWERED else error.code


def problem_of(error: KshotError, instance: str) -> Problem:
    """Describe an error to the client; a fault of the server's own is not described."""
    status, code = status_of(error), code_of(error)
    told = isinstance(error, refused.RequestError | StoreFullError)
    public = told or status < HTTPStatus.INTERNAL_SERVER_ERROR
    detail = str(error) + HINTS.get(type(error), "") if public else _own_fault(status)
    problem = blank(status, code, detail, instance)
    problem.retryable = getattr(error, "retryable", False) or status in RETRYABLE
    if isinstance(error, refused.RequestError):
        problem.errors = [FieldProblem(field=f.field, message=f.message) for f in error.faults]
    if isinstance(error, RevisionStaleError):
        problem.revision = error.stored
    if isinstance(error, refused.ClipsRefusedError):
        problem.clips = [clip_problem(fault) for fault in error.clips]
    return problem


def clip_problem(fault: refused.ClipFault) -> ClipProblem:
    """Say why one clip cannot be used, and which it is."""
    return ClipProblem(
        index=fault.index,
        name=fault.name,
        label=fault.label,
        code=fault.error.code,
        detail=str(fault.error),
    )


def blank(status: int, code: str, detail: str, instance: str) -> Problem:
    """Make a problem without lists."""
    return Problem(
        type=f"urn:kshot:problem:{code}",
        title=code.replace("-", " ").capitalize(),
        status=status,
        detail=detail,
        instance=instance,
        code=code,
        retryable=status in RETRYABLE,
    )


def answer(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Turn a problem into a response."""
    body = problem.model_dump(mode="json", exclude_none=True)
    return JSONResponse(body, problem.status, dict(headers or {}), media_type=MEDIA_TYPE)


def refusal(error: KshotError, scope: Scope) -> JSONResponse:
    """Answer a request with an error."""
    if status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR and not _expected(error):
        _tell(error)
    problem = problem_of(error, str(scope.get("kshot.request_id", "")))
    scope["kshot.code"] = problem.code
    after = getattr(error, "retry_after_s", None) or (1.0 if problem.retryable else None)
    headers = {"retry-after": str(max(1, math.ceil(after)))} if after else {}
    if problem.revision is not None:
        headers["etag"] = f'"{problem.revision}"'
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return answer(problem, headers)


def _tell(error: KshotError) -> None:
    """Log a fault of ours whole, and in one line what passes: it may refuse every request."""
    if status_of(error) not in RETRYABLE:
        log.error("%s: %s", code_of(error), error, exc_info=error.__cause__)
    elif (more := SELDOM.held_back(error.code)) is not None:
        since = f" ({more} more such refusals since the last line)" if more else ""
        log.warning("%s: %s%s", error.code, error, since)


def _expected(error: KshotError) -> bool:
    """Tell whether load or a stop explains an error; these are not logged: there may be many."""
    expected = (
        refused.ServerFullError,
        refused.ServerStoppingError,
        refused.DecoderBusyError,
        refused.DeadlineError,
    )
    return isinstance(error, expected)


def invalid(errors: Sequence[Mapping[str, object]]) -> refused.RequestError:
    """Put pydantic's list of faults into one sentence, and each into `errors[]`."""
    faults = [_fault(error) for error in errors]
    kinds = [FAULTS.get(str(error["type"]), refused.InvalidRequestError) for error in errors]
    kind = next((kind for kind in FAULTS.values() if kind in kinds), refused.InvalidRequestError)
    first = faults[kinds.index(kind)]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return kind(f"{first.field}: {first.message}{more}.", faults)


def install(app: FastAPI) -> None:
    """Answer every error of the application in the one shape."""

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, KshotError)
        return refusal(error, request.scope)

    async def validate(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return await refuse(request, invalid(error.errors()))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = _verbs(request)
        code, detail = _http(request, error, headers)
        request.scope["kshot.code"] = code
        return answer(blank(error.status_code, code, detail, request_id(request)), headers)

    async def leave(request: Request, _: Exception) -> JSONResponse:
        return await refuse(request, refused.ClientLeftError("The client left while sending."))

    async def crash(request: Request, _: Exception) -> JSONResponse:
        request.scope["kshot.code"] = INTERNAL
        return answer(blank(500, INTERNAL, _own_fault(500), request_id(request)))

    app.add_exception_handler(KshotError, refuse)
    app.add_exception_handler(RequestValidationError, validate)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, leave)
    app.add_exception_handler(Exception, crash)


def request_id(request: Request) -> str:
    """Return the id under which the log has this request."""
    return str(request.scope.get("kshot.request_id", ""))


def _fault(error: Mapping[str, object]) -> refused.FieldFault:
    location = error["loc"]
    assert isinstance(location, Sequence)
    field = ".".join(str(part) for part in location if part not in ("body", "query", "path"))
    if error["type"] == "extra_forbidden":
        return refused.FieldFault(field or "body", "no such field; take it away")
    if error["type"] == "missing":
        return refused.FieldFault(field or "body", "is missing; add it")
    shown = repr(error.get("input"))
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return refused.FieldFault(field or "body", f"{error['msg']}, not {shown}")


def _verbs(request: Request) -> str:
    """List all verbs of a path: each is a route of its own, and the framework names the first.

    HEAD is one wherever GET is. A path that is a route's own, letter by letter, has none of those
    that routes with parameters would take.
    """
    routes, scope = request.app.router.routes, request.scope
    own = {verb for route in routes for verb in _methods(route, scope["path"])}
    if not own:
        taken = {
            verb: any(route.matches({**scope, "method": verb})[0] is Match.FULL for route in routes)
            for verb in VERBS
        }
        own = {verb for verb, is_taken in taken.items() if is_taken}
    own |= {"HEAD"} if "GET" in own else set()
    return ", ".join(verb for verb in VERBS if verb in own)


def _methods(route: BaseRoute, path: str) -> set[str]:
    """Return the verbs of a route, or of those included in it, whose path is this one exactly."""
    included = getattr(route, "effective_route_contexts", None)
    each = (route,) if included is None else included()
    exact = (one for one in each if getattr(one, "path", "") == path)
    return {verb for one in exact for verb in getattr(one, "methods", None) or ()}


def _http(request: Request, error: HTTPException, headers: Mapping[str, str]) -> tuple[str, str]:
    match error.status_code:
        case 404:
            return ROUTE_CODES[404], (
                f"There is no route {request.url.path[:200]!r}; see those of /openapi.json."
            )
        case 405:
            return ROUTE_CODES[405], (
                f"{request.scope.get(ASKED, request.method)} is not a verb of "
                f"{request.url.path[:200]!r}; "
                f"use {headers.get('Allow', 'another')}."
            )
        case _:
            return refused.MalformedRequestError.code, str(error.detail)


def _own_fault(status: int) -> str:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return "A part of the service cannot be reached at the moment; ask again shortly."
    return "The service failed on this request; give its operator the instance of this problem."
