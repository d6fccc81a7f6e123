"""The client for asyncio."""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import anyio
import httpx

from kshot_client.calls import Call, Flow, Give, Items, Open, Pause, Piece, Send, Step
from kshot_client.operations import changes, questions, timelines, watching
from kshot_client.operations import tasks as making
from kshot_client.retries import Retries
from kshot_client.transport import TIMEOUT_S, Course, options_of, request_of
from kshot_client.uploads import InThread

P = ParamSpec("P")
T = TypeVar("T")


class Returning(Generic[P, T]):
    """A method of the client: an operation that comes to one value."""

    def __init__(self, flow: Callable[P, Flow[T]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self, client: "AsyncClient", owner: type
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(
        self, client: "AsyncClient | None", owner: type
    ) -> Self | Callable[P, Coroutine[Any, Any, T]]:
        """Bind it to a client."""
        if client is None:
            return self

        @functools.wraps(self._flow)
        async def method(*args: P.args, **kwargs: P.kwargs) -> T:
            course = Course(self._flow(*args, **kwargs), client.retries)
            async for _ in client.carry_out(course):
                pass
            return course.result

        return method


class Giving(Generic[P, T]):
    """A method of the client: an operation that gives items."""

    def __init__(self, flow: Callable[P, Items[T]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(
        self, client: "AsyncClient | None", owner: type
    ) -> Self | Callable[P, AsyncIterator[T]]:
        """Bind it to a client."""
        if client is None:
            return self

        @functools.wraps(self._flow)
        def method(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
            return client.carry_out(Course(self._flow(*args, **kwargs), client.retries))

        return method


class AsyncClient:
    """Talks to one service.

    Args:
        url: Its address; None is that of KSHOT_URL, or http://127.0.0.1:8000.
        key: An API key; None is that of KSHOT_API_KEY, or none.
        timeout_s: For each part of a request: connecting, sending, waiting for the next byte.
        retries: When requests are sent again.
        headers: Beside those of every request.

    Raises:
        SettingError: The address or the key cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.retries = Retries() if retries is None else retries
        self._http = httpx.AsyncClient(**options_of(url, key, timeout_s, headers))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def carry_out(self, course: Course[Any]) -> AsyncIterator[Any]:
        """Do the steps of a flow; gives its items."""
        async with contextlib.AsyncExitStack() as stack:
            do = _Doing(self._http, stack)
            while (step := course.step) is not None:
                if isinstance(step, Give):
                    yield step.item
                    course.reply(None)
                    continue
                try:
                    reply = await do.step(step)
                except httpx.TransportError as error:
                    course.fail(error)
                else:
                    course.reply(reply)

    register = Returning(making.register)
    wait_until_ready = Returning(making.wait_until_ready)
    watch_task = Giving(watching.watch_task)
    tasks = Giving(making.tasks)
    task = Returning(making.task)
    delete = Returning(making.delete)
    diagnose = Returning(making.diagnose)
    export_task = Returning(making.export_task)
    import_task = Returning(making.import_task)

    change = Returning(changes.change)
    put_label = Returning(changes.put_label)
    add_clips = Returning(changes.add_clips)
    rename_label = Returning(changes.rename_label)
    describe_label = Returning(changes.describe_label)
    remove_label = Returning(changes.remove_label)
    remove_clip = Returning(changes.remove_clip)
    clip_frames = Returning(changes.clip_frames)
    answer_query = Returning(changes.answer_query)

    classify = Returning(questions.classify)
    classify_all = Giving(questions.classify_all)
    timeline = Giving(timelines.timeline)
    timeline_text = Returning(timelines.timeline_text)
    inbox = Returning(questions.inbox)
    query_frames = Returning(questions.query_frames)
    info = Returning(questions.info)
    limits = Returning(questions.limits)
    usage = Returning(questions.usage)
    health = Returning(questions.health)
    model = Returning(questions.model)
    swap_model = Returning(questions.swap_model)


class _Doing:
    """Does steps; an answer that is open is closed with the stack."""

    def __init__(self, http: httpx.AsyncClient, stack: contextlib.AsyncExitStack) -> None:
        self._http = http
        self._stack = stack
        self._pieces: AsyncIterator[str] | None = None

    async def step(self, step: Step) -> object:
        """Do one step; returns the reply."""
        match step:
            case Send(call):
                return await self._http.send(self._request(call))
            case Open(call):
                await self._stack.aclose()  # of the answer before, if there was one
                answer = await self._http.send(self._request(call), stream=True)
                self._stack.push_async_callback(answer.aclose)
                if answer.is_success:
                    self._pieces = answer.aiter_text()
                else:
                    await answer.aread()
                return answer
            case Piece():
                assert self._pieces is not None
                return await anext(self._pieces, None)
            case Pause(seconds):
                await anyio.sleep(seconds)
                return None

    def _request(self, call: Call) -> httpx.Request:
        request = request_of(self._http, call)
        if call.form is not None or call.file is not None:
            assert isinstance(request.stream, httpx.SyncByteStream)
            request.stream = InThread(request.stream)
        return request
