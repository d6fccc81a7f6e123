"""`python -m service.admin`, or `kshot-admin`: keys, what tenants may use, which model answers."""

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
    from service.stores.quotas.kept import Kind, Own

    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]

SCOPES = "read,classify,write"
QUOTAS = {
    "tasks": "Most tasks",
    "bytes": "Most bytes of them, such as 10GB",
    "clip-seconds": "Most seconds of video a minute",
    "frames": "Most frames for the device a minute",
}


def main() -> int:
    """Do what the command line says."""
    arguments = _parser().parse_args()
    try:
        if arguments.part == "model":
            from service.admin_model import run

            return run(arguments)
        return asyncio.run(_done(arguments))
    except KshotError as error:
        print(f"{error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kshot-admin", description="Look after a kshot service; docs/keys.md tells more."
    )
    parts = parser.add_subparsers(dest="part", required=True)
    _add_keys(_part(parts, "keys", "Make, list, rotate and revoke the API keys of a store."))
    quotas = _part(parts, "quotas", "Say what single tenants may use, in place of KSHOT_QUOTA_....")
    put = quotas.add_parser("set", description="Set quotas of a tenant; the others stay.")
    put.add_argument("tenant", help="Whose, as its keys have it.")
    for name, what in QUOTAS.items():
        put.add_argument(f"--{name}", metavar="N", help=f"{what}; none is without a limit.")
    quotas.add_parser("show", description="List the quotas of all tenants that have their own.")
    clear = quotas.add_parser("clear", description="Take a tenant's quotas: the usual ones hold.")
    clear.add_argument("tenant", help="Whose.")
    _add_model(parts)
    return parser


def _add_model(parts: "Parsers") -> None:
    model = parts.add_parser(
        "model",
        description="Ask running services, by HTTP, which model they serve, or to serve another.",
    )
    model.add_argument(
        "--url",
        action="append",
        help="Address of a service, in place of KSHOT_URL; again for each further replica.",
    )
    model.add_argument("--key", help="A key of the scope admin, in place of KSHOT_API_KEY.")
    verbs = model.add_subparsers(dest="verb", required=True)
    verbs.add_parser("show", description="Tell which model answers, and which others may.")
    serve = verbs.add_parser(
        "serve", description="Serve another checkpoint; wait until it answers for all tasks."
    )
    serve.add_argument("checkpoint", help="Its name, as `show` lists it.")
    serve.add_argument("--no-wait", action="store_true", help="Return once it is on its way.")


def _part(parts: "Parsers", name: str, what: str) -> "Parsers":
    made = parts.add_parser(name, description=what)
    made.add_argument("--store", help="The store that has them, in place of KSHOT_STORE.")
    return made.add_subparsers(dest="verb", required=True)


def _add_keys(verbs: "Parsers") -> None:
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


async def _done(arguments: argparse.Namespace) -> int:
    from service.keys.opening import make_sure_of
    from service.settings import Settings

    url = arguments.store or Settings.from_env().store
    await make_sure_of(url)
    if arguments.part == "quotas":
        await _look_after_quotas(url, arguments)
    else:
        await _look_after_keys(url, arguments)
    return 0


async def _look_after_keys(url: str, arguments: argparse.Namespace) -> None:
    from service.keys.opening import open_keys

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


async def _look_after_quotas(url: str, arguments: argparse.Namespace) -> None:
    from service.keys.opening import open_grants

    grants = open_grants(url)
    try:
        match arguments.verb:
            case "set":
                await grants.put(_tenant(arguments.tenant), _quotas(arguments))
            case "clear":
                await grants.put(_tenant(arguments.tenant), {})
        for tenant, own in (await grants.list()).items():
            shown = (_shown(kind, most) for kind, most in own.items())
            print("\t".join([tenant, *shown]))
    finally:
        await grants.close()


def _quotas(arguments: argparse.Namespace) -> "Own":
    from service.errors import SettingsError
    from service.stores.quotas.kept import KIND

    given = {name: getattr(arguments, name.replace("-", "_")) for name in QUOTAS}
    own = {KIND[name]: _amount(name, text) for name, text in given.items() if text is not None}
    if not own:
        raise SettingsError(f"Nothing is set; give one of --{', --'.join(QUOTAS)}.")
    return own


def _amount(name: str, text: str) -> int | None:
    """Read a limit: a number, of bytes with a unit if need be, or `none`."""
    from service.errors import SettingsError

    if text == "none":
        return None
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,3})?) ?([kMGT]i?B|B)?", text)
    if found is None or (found[2] and name != "bytes") or ("." in found[1] and not found[2]):
        example = "10GB" if name == "bytes" else "100"
        raise SettingsError(f"--{name} is {text[:40]!r}; write a whole number, {example} or none.")
    power = "kMGT".index(found[2][0]) + 1 if found[2] and found[2] != "B" else 0
    unit = int((1024 if found[2] and "i" in found[2] else 1000) ** power)
    return round(float(found[1]) * unit) * (1000 if name == "clip-seconds" else 1)


def _shown(kind: "Kind", most: int | None) -> str:
    from service.stores.quotas.kept import NAMES

    in_units = most // 1000 if most is not None and kind == "clip_ms" else most
    return f"{NAMES[kind]} {'none' if most is None else in_units}"


def _tenant(text: str) -> str:
    from service.errors import SettingsError
    from service.keys import key

    if re.fullmatch(key.TENANT, text) is None:
        raise SettingsError(
            f"The tenant is {text!r}; use up to 31 small letters, digits and hyphens."
        )
    return text


async def _make(keys: "KeyStore", name: str, tenant: str, scopes: str) -> None:
    from service.errors import SettingsError
    from service.keys import key

    wanted = {word.strip() for word in scopes.split(",")}
    if not wanted or wanted - {*key.SCOPES}:
        raise SettingsError(f"The scopes are {scopes!r}; name some of {', '.join(key.SCOPES)}.")
    first = not await keys.list()
    in_order = tuple(scope for scope in key.SCOPES if scope in wanted)
    record, token = key.make_key(name, _tenant(tenant), in_order, time.time())
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
