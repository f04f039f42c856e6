"""Room for decoded images among threads: how many pixels may be in memory at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from t2ialign.data.images import Admit

PIXELS = 1 << 26
"""64 images of 1024x1024; 4 bytes a pixel while an image is decoded, and as many again while it is turned."""


class Room:
    """`PIXELS` of images that threads decode: one that does not fit waits until others are done.

    An image larger than all of it is decoded while nothing else is. Who holds one image already gets the
    next at once, since two that wait for each other would wait for ever.
    """

    def __init__(self, pixels: int = PIXELS) -> None:
        self.pixels, self.used, self._free = pixels, 0, threading.Condition()

    @contextmanager
    def taken(self) -> Iterator[Admit]:
        """Gives the `admit` of `open_rgb`: images that are opened with it take room until the block ends."""
        held = 0

        def admit(height: int, width: int) -> None:
            nonlocal held
            size = height * width
            with self._free:
                if not held:
                    self._free.wait_for(lambda: not self.used or self.used + size <= self.pixels)
                self.used += size
                held += size

        try:
            yield admit
        finally:
            with self._free:
                self.used -= held
                self._free.notify_all()
