"""A way to a Redis that can be cut as a network is: nothing is refused or closed, nothing arrives any more."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Link:
    """Forwards what comes to `port` to `target`, until `cut`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._run(self._accept)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        self._whole.clear()

    def lead_to(self, target: int) -> None:
        """Another server from now on, as when a name's address changes."""
        self._target = target
        self._hang_up()

    def close(self) -> None:
        self._listener.close()
        self._hang_up()

    def _hang_up(self) -> None:
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):  # it isn't connected any more
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _run(target: object, *args: object) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()  # type: ignore[arg-type]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                if not self._whole.is_set():
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except ConnectionRefusedError:
                    near.close()
                    continue
                self._sockets.append(far)
                self._run(self._pump, near, far)
                self._run(self._pump, far, near)

    def _pump(self, source: socket.socket, drain: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed by one of the two, or by `close`
            while data := source.recv(65536):
                if not self._whole.is_set():
                    return
                drain.sendall(data)
            drain.shutdown(socket.SHUT_WR)
