"""Counts and latencies of requests, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Collection

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the histogram's classes, in seconds."""
OTHER = "other"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What was asked of a service, by path and status; paths that it does not have are ``other``."""

    def __init__(self, paths: Collection[str]) -> None:
        self._paths, self._lock = frozenset(paths), threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._within: Counter[tuple[str, float]] = Counter()
        self._n: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count one request."""
        name = path if path in self._paths else OTHER
        with self._lock:
            self._requests[name, status] += 1
            self._n[name] += 1
            self._seconds[name] += seconds
            for end in BUCKETS:
                self._within[name, end] += seconds <= end

    def text(self, gauges: dict[str, tuple[str, float]]) -> str:
        """All of it, and ``gauges`` by name, each with its help and value."""
        with self._lock:
            name = "pyro_cvae_requests_total"
            lines = [f"# HELP {name} Answers by path and status.", f"# TYPE {name} counter"]
            for (path, status), n in sorted(self._requests.items()):
                lines.append(f'{name}{{path="{path}",status="{status}"}} {n}')
            name = "pyro_cvae_request_seconds"
            lines += [f"# HELP {name} Seconds from a request to the end of its answer.", f"# TYPE {name} histogram"]
            for path, n in sorted(self._n.items()):
                lines += [f'{name}_bucket{{path="{path}",le="{end}"}} {self._within[path, end]}' for end in BUCKETS]
                lines.append(f'{name}_bucket{{path="{path}",le="+Inf"}} {n}')
                lines.append(f'{name}_sum{{path="{path}"}} {self._seconds[path]:.6f}')
                lines.append(f'{name}_count{{path="{path}"}} {n}')
        for gauge, (what, value) in gauges.items():
            lines += [f"# HELP {gauge} {what}", f"# TYPE {gauge} gauge", f"{gauge} {value:g}"]
        return "\n".join(lines) + "\n"
