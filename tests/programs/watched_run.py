"""A run from the command line under watch; integration/test_security.py starts it.

Usage: python watched_run.py FOUND ARGUMENTS. Notes every look-up of a class by an unpickler, with the files
on the stack, and every try to reach the network; writes them to FOUND as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

os.umask(0o027)
found: dict[str, list] = {"pickled": [], "reached": []}
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


def watch(event: str, arguments: tuple) -> None:
    if event == "pickle.find_class":
        frame, files = sys._getframe(), []
        while frame is not None:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        found["pickled"].append(files)
    elif event in NETWORK:
        found["reached"].append([event, *map(str, arguments)])


sys.addaudithook(watch)

from relation_neurons.cli.app import app  # noqa: E402  # what is imported is watched too

with contextlib.suppress(SystemExit):
    app(sys.argv[2:])
Path(sys.argv[1]).write_text(json.dumps(found))
