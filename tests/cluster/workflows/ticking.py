"""The documents example beside a thread of the user's own that says when it runs."""

import threading
import time

from documents import Documents as Plain


def tick() -> None:
    while True:
        print(f"tick {time.time():.3f}", flush=True)
        time.sleep(0.05)


def Documents() -> Plain:
    threading.Thread(target=tick, daemon=True).start()
    return Plain()
