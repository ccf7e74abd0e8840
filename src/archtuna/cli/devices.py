"""Commands about devices of one's own, on which latencies are measured."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from archtuna import agent
from archtuna.cli.arguments import epilog, flag, print_json, verb
from archtuna.errors import LatencyError

DOCS = "docs/latency.md"


def device(verbs: Any) -> None:
    parser = verbs.add_parser(
        "device",
        help="give devices to measure on a name, or be such a device",
        description="Give devices to measure on a name, or be such a device.",
        epilog=epilog(
            (
                "archtuna device add pi4 ssh://pi@raspberrypi.local",
                "archtuna search search.yaml --data photos --out runs/pi --objectives f1,latency_ms@pi4",
            ),
            DOCS,
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inner = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    added = verb(
        inner, "add", _run_add, "give a device a name, for --on NAME and latency_ms@NAME",
        examples=(
            "archtuna device add pi4 ssh://pi@raspberrypi.local",
            "archtuna device add board http://10.0.0.7:8765 --token-file token.txt",
        ),
        docs=DOCS,
    )  # fmt: skip
    added.add_argument("name", metavar="NAME", help="letters and digits, such as pi4")
    added.add_argument(
        "url", metavar="URL", help="http://host:port of an agent, or ssh://user@host[:port][/path/to/python]"
    )
    added.add_argument("--token-file", metavar="FILE", help="a file with the agent's token; - reads standard input")
    flag(
        verb(
            inner, "list", _run_list, "list the devices that have names", examples=("archtuna device list",), docs=DOCS
        ),
        "json",
    )
    removed = verb(inner, "remove", _run_remove, "forget a device", examples=("archtuna device remove pi4",), docs=DOCS)
    removed.add_argument("name", metavar="NAME", help="of the device; archtuna device list has them")
    shown = verb(inner, "show", _run_show, "ask a device what it is", examples=("archtuna device show pi4",), docs=DOCS)
    shown.add_argument("name", metavar="NAME", help="a name, or a URL")
    flag(shown, "json")
    verb(
        inner, "agent", _run_agent, "print where the one file is that measures, to copy it to a device",
        examples=('scp "$(archtuna device agent)" pi@raspberrypi.local:',), docs=DOCS,
    )  # fmt: skip
    serving = verb(
        inner, "serve", _run_serve, "measure for others, over HTTP, until Ctrl-C",
        examples=("archtuna device serve --host 0.0.0.0 --token-file token.txt",), docs=DOCS,
    )  # fmt: skip
    agent.serve_arguments(serving)


def _run_add(arguments: argparse.Namespace) -> None:
    from archtuna.targets import add_device

    file = arguments.token_file
    token = _token(arguments.url) if file in (None, "-") else None
    added = add_device(arguments.name, arguments.url, token_file=None if file == "-" else file, token=token)
    print(f"{added.name} is {added.url}; 'archtuna device show {added.name}' asks what it is")


def _token(url: str) -> str | None:
    """Return the token that a person types or pipes, and keep it off the screen and out of the list of processes."""
    if url.startswith("ssh:"):
        return None
    asked = "its token (nothing: from $ARCHTUNA_DEVICE_TOKEN): "
    token = getpass.getpass(asked) if sys.stdin.isatty() else sys.stdin.readline()
    return token.strip() or None


def _run_list(arguments: argparse.Namespace) -> None:
    from archtuna.targets import devices

    known = devices()
    if arguments.json:
        print_json([{"name": one.name, "url": one.url, "token_file": one.token_file} for one in known.values()])
        return
    if not known:
        print("no device has a name yet: archtuna device add NAME URL")
    width = max(map(len, known), default=0)
    for name, one in known.items():
        print(f"{name:<{width}}  {one.url}{f'  token in {one.token_file}' if one.token_file else ''}")


def _run_remove(arguments: argparse.Namespace) -> None:
    from archtuna.targets import remove_device

    remove_device(arguments.name)
    print(f"{arguments.name} is forgotten")


def _run_show(arguments: argparse.Namespace) -> None:
    from archtuna.remote import ask
    from archtuna.targets import target_of

    found = ask(target_of(arguments.name), None, patience=0)
    if arguments.json:
        print_json(found)
        return
    print(f"{found['processor']}, {found['cores']} cores, {found['system']}")
    print(f"{found['runtime']}: {', '.join(found['providers'])}")


def _run_agent(arguments: argparse.Namespace) -> None:
    print(agent.__file__)


def _run_serve(arguments: argparse.Namespace) -> int:
    try:
        return agent.serve(arguments)
    except agent.Refused as error:
        refused = error
    raise LatencyError(str(refused), hint=refused.hint)
