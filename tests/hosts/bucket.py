"""An S3 server with two doors: one on this machine's loopback, for tests to look in; one on a host's network.

Started as `python -m tests.hosts.bucket PORT PID ADDRESS PORT LOG`: says `ready` and serves until it is killed. Who
asks for what is noted in a file that it was handed open: client, method and path, a line each.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.hosts.switch import enter_network


def main() -> None:
    """Opens both doors and serves."""
    inner_port, pid, address, port, log = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:6])
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    serve = DomainDispatcherApplication(create_backend_app)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        os.write(log, f"{environ['REMOTE_ADDR']} {environ['REQUEST_METHOD']} {environ['PATH_INFO']}\n".encode())
        answer: Iterable[bytes] = serve(environ, start_response)
        return answer

    # A socket stays in the network in which it was opened.
    inner = make_server("127.0.0.1", inner_port, app, threaded=True)
    enter_network(pid)
    outer = make_server(address, port, app, threaded=True)
    threading.Thread(target=inner.serve_forever, daemon=True).start()
    print("ready", flush=True)
    outer.serve_forever()


if __name__ == "__main__":
    main()
