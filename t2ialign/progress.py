"""Progress of a task: a bar on a terminal and in a notebook, elsewhere a plain line now and then.

Nothing is shown where it is quiet.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any

from tqdm import tqdm

FIRST, LONGEST = 10.0, 60.0
"""Seconds between two lines: a tenth of the time so far, within these."""


def quiet() -> bool:
    """Whether the log of t2ialign is set to show warnings alone, as -q and all processes but the first do."""
    return logging.getLogger("t2ialign").level > logging.INFO


def in_notebook() -> bool:
    """Whether this is a cell of Jupyter or Colab, whose output is no terminal and yet shows bars."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Progress:
    """Counts up to `total`, by `update` or by going through `items`; use it in a `with`, or close it.

    delay: seconds before a bar appears. Whatever is shown goes to stderr.
    """

    def __init__(
        self,
        items: Iterable[Any] | None = None,
        *,
        desc: str,
        total: int | None = None,
        unit: str = "step",
        initial: int = 0,
        delay: float = 0,
        disable: bool = False,
    ) -> None:
        count = getattr(items, "__len__", None)
        self.items, self.desc, self.unit, self.n = items, desc, unit, initial
        self.total = count() if total is None and count is not None else total
        notebook, shown = in_notebook(), not disable and not quiet()
        has_bars = notebook or sys.stderr.isatty()
        self._bar: tqdm[Any] | None = None
        if shown and has_bars:
            self._bar = _bar_class(notebook=notebook)(
                total=self.total, initial=initial, desc=desc, unit=unit, delay=delay, mininterval=0.2
            )
        self._lines, self._note, self._began = shown and not has_bars, "", time.monotonic()
        self._last, self._printed = self._began, -1

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        """The items, each counted when the next one is asked for."""
        assert self.items is not None, "there is nothing to go through"
        with self:
            for item in self.items:
                yield item
                self.update()

    def update(self, n: int = 1) -> None:
        """Count n more as done."""
        self.n += n
        if self._bar is not None:
            self._bar.update(n)
        now = time.monotonic()
        if self._lines and now - self._last >= min(LONGEST, max(FIRST, (now - self._began) / 10)):
            self._say(now)

    def set_postfix(self, values: Mapping[str, object]) -> None:
        """Show these with what is shown next."""
        self._note = "".join(f", {name} {value}" for name, value in values.items())
        if self._bar is not None:
            self._bar.set_postfix(values, refresh=False)

    def close(self) -> None:
        """Show where it ended, if anything was shown before; a second call does nothing."""
        if self._bar is not None:
            self._bar.close()
        if self._lines and self._printed not in (-1, self.n):
            self._say(time.monotonic())
        self._lines = False

    def _say(self, now: float) -> None:
        """Print one line."""
        self._last, self._printed = now, self.n
        many = f"{self.n}" if self.total is None else f"{self.n} of {self.total}"
        spent = timedelta(seconds=round(now - self._began))
        print(
            f"t2ialign: {self.desc}: {many} {self.unit}s in {spent}{self._note}", file=sys.stderr, flush=True
        )


def _bar_class(*, notebook: bool) -> type[tqdm[Any]]:
    """The bar of a terminal, or the one that tqdm has for this notebook."""
    if not notebook:
        return tqdm
    from tqdm import auto

    return auto.tqdm
