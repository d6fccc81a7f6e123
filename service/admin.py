"""`python -m service.admin keys`, or `kshot-admin keys`: makes, lists and ends API keys."""

import argparse
import asyncio
import re
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from model.errors import KshotError

if TYPE_CHECKING:  # `--help` needs none of it
    from service.keys.keeping import KeyStore
    from service.keys.key import KeyRecord

SCOPES = "read,classify,write"


def main() -> int:
    """Do what the command line says."""
    arguments = _parser().parse_args()
    try:
        return asyncio.run(_done(arguments))
    except KshotError as error:
        print(f"{error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kshot-admin", description="Look after a kshot service; docs/keys.md tells more."
    )
    keys = parser.add_subparsers(required=True).add_parser(
        "keys", description="Make, list, rotate and revoke the API keys of a store."
    )
    keys.add_argument("--store", help="The store that has the keys, in place of KSHOT_STORE.")
    verbs = keys.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("make", description="Make a key; its token is shown this once.")
    make.add_argument("--name", required=True, help="Whose it is, for your own list.")
    make.add_argument("--tenant", default="default", help="Whose tasks it sees and makes.")
    make.add_argument(
        "--scopes", default=SCOPES, help=f"What it may do, of read,classify,write,admin: {SCOPES}."
    )
    verbs.add_parser("list", description="List all keys; a secret is shown of none.")
    for verb, what in (
        ("rotate", "Give a key another secret; the one before opens nothing any more."),
        ("revoke", "End a key for good."),
    ):
        verbs.add_parser(verb, description=what).add_argument("id", help="The key, as in the list.")
    return parser


async def _done(arguments: argparse.Namespace) -> int:
    from service.keys.keeping import make_sure_of, open_keys
    from service.settings import Settings

    url = arguments.store or Settings.from_env().store
    await make_sure_of(url)
    keys = open_keys(url)
    try:
        match arguments.verb:
            case "make":
                await _make(keys, arguments.name, arguments.tenant, arguments.scopes)
            case "list":
                for record in await keys.list():
                    print(_line(record))
            case verb:
                await _change(keys, arguments.id, verb)
    finally:
        await keys.close()
    return 0


async def _make(keys: "KeyStore", name: str, tenant: str, scopes: str) -> None:
    from service.errors import SettingsError
    from service.keys import key

    wanted = {word.strip() for word in scopes.split(",")}
    if not wanted or wanted - {*key.SCOPES}:
        raise SettingsError(f"The scopes are {scopes!r}; name some of {', '.join(key.SCOPES)}.")
    if re.fullmatch(key.TENANT, tenant) is None:
        raise SettingsError(
            f"The tenant is {tenant!r}; use up to 31 small letters, digits and hyphens."
        )
    first = not await keys.list()
    in_order = tuple(scope for scope in key.SCOPES if scope in wanted)
    record, token = key.make_key(name, tenant, in_order, time.time())
    await keys.put(record)
    print(_line(record), file=sys.stderr)
    if first:
        print(
            "It is the first key: a service that runs asks for one within 2 seconds from now on.",
            file=sys.stderr,
        )
    print(token)


async def _change(keys: "KeyStore", key_id: str, verb: str) -> None:
    from service.errors import SettingsError
    from service.keys import key

    record = await keys.get(key_id)
    if record is None:
        raise SettingsError(f"There is no key {key_id[:60]!r}; `kshot-admin keys list` shows all.")
    if record.revoked_at is not None:
        raise SettingsError(f"Key {key_id} is revoked, which is for good; make another one.")
    if verb == "revoke":
        await keys.put(replace(record, revoked_at=time.time()))
        print(f"Key {key_id} opens nothing any more, in a service that runs within 2 seconds.")
    else:
        record, token = key.rotated(record, time.time())
        await keys.put(record)
        print(token)


def _line(record: "KeyRecord") -> str:
    state = "valid" if record.revoked_at is None else "revoked"
    made = time.strftime("%Y-%m-%d", time.gmtime(record.created_at))
    return "\t".join(
        [record.key_id, state, record.tenant, ",".join(record.scopes), made, record.name]
    )


if __name__ == "__main__":
    sys.exit(main())
