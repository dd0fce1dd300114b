"""How often something may be asked for: a bucket that fills at a steady rate."""

from __future__ import annotations


class Rate:
    """Lets `burst` through at once and `per_s` a second from then on. Times are seconds of a clock that only rises."""

    def __init__(self, *, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._at_s: float | None = None

    def take(self, now_s: float, count: float = 1) -> float:
        """0 when this one, or these `count`, may pass; else how many seconds to wait. At most a burst."""
        count = min(count, self._burst)
        self._fill(now_s)
        if self._left >= count:
            self._left -= count
            return 0.0
        return (count - self._left) / self._per_s

    def owe(self, now_s: float, count: float) -> float:
        """These pass in any case: how many seconds to wait until they are made good."""
        self._fill(now_s)
        self._left -= count
        return max(0.0, -self._left / self._per_s)

    def _fill(self, now_s: float) -> None:
        if self._at_s is not None:
            self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s


class Rates:
    """A Rate for each of many names; of those that were not heard of for longest it forgets, beyond `most`."""

    def __init__(self, *, burst: int, per_s: float, most: int) -> None:
        self._burst, self._per_s, self._most = burst, per_s, most
        self._of: dict[str, Rate] = {}

    def take(self, name: str, now_s: float, count: float = 1) -> float:
        """As Rate.take, for `name`."""
        return self._rate(name).take(now_s, count)

    def owe(self, name: str, now_s: float, count: float) -> float:
        """As Rate.owe, for `name`."""
        return self._rate(name).owe(now_s, count)

    def _rate(self, name: str) -> Rate:
        rate = self._of.pop(name, None) or Rate(burst=self._burst, per_s=self._per_s)
        self._of[name] = rate
        if len(self._of) > self._most:
            del self._of[next(iter(self._of))]
        return rate
