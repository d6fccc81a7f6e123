"""Forked processes have their modules before they begin."""

from tests.forked import CONTEXT, PRELOADED, START_S, loaded


def test_a_forked_process_has_imported_everything() -> None:
    """An import that fails in the server is silent: each fork would pay for it again."""
    heard, said = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=loaded, args=(PRELOADED, said))
    process.start()
    assert heard.poll(START_S)
    assert heard.recv() == [*PRELOADED]
    process.join()
