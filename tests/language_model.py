"""A server that speaks the OpenAI protocol, for tests: answers stages, counts, stalls or fails."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[str], list[str]]


class LanguageModel:
    """What the fake model was asked, and how it behaves.

    Args:
        answer: Stages for the text it is asked.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.gate = threading.Event()  # answers wait for it
        self.gate.set()
        self.status = 200
        self.url = ""


@contextmanager
def language_model(answer: Answer) -> Iterator[LanguageModel]:
    """Run a fake endpoint; its `url` goes into KSHOT_LLM_BASE_URL."""
    fake = LanguageModel(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"])).decode()
            fake.asked.append(json.loads(asked)["messages"][-1]["content"])
            fake.gate.wait(20)
            body = json.dumps(completion(fake.answer(fake.asked[-1]))).encode()
            self.send_response(fake.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield fake
    finally:
        fake.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def completion(stages: list[str]) -> dict[str, object]:
    content = json.dumps({"stages": stages})
    message = {"role": "assistant", "content": content}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
    }
