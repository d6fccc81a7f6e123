"""Server-sent events: what of the format the service writes, read as its bytes come."""

from collections.abc import Iterator


class Events:
    """Reads a stream of events, whose lines end in LF or CR LF alone.

    `str.splitlines` would also end them at characters that may stand in the name of a file.
    """

    def __init__(self) -> None:
        self._rest = ""
        self.last_id = ""  # of the last event that had one

    def feed(self, piece: str) -> Iterator[tuple[str, str]]:
        """Read on; gives name and data of each event that is whole."""
        *whole, self._rest = (self._rest + piece).replace("\r\n", "\n").split("\n\n")
        for block in whole:
            name, data = "message", list[str]()
            for line in block.split("\n"):
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    name = value
                elif field == "id":
                    self.last_id = value
                elif field == "data":
                    data.append(value)
            if data:
                yield name, "\n".join(data)
