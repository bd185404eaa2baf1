"""What a server has done, in the text that Prometheus reads. Counters only ever grow; nothing here asks a clock.

Labels are words of ours (a path, a status, a member's name), never of a client, so that there are only so many series.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

Labels = tuple[str, ...]


@dataclass
class Counter:
    """A sum for each combination of labels."""

    name: str
    about: str
    labels: tuple[str, ...]
    values: dict[Labels, float] = field(default_factory=dict[Labels, float])

    def __post_init__(self) -> None:
        """Begin at 0 where there is one sum alone."""
        if not self.labels:
            self.values[()] = 0.0

    def add(self, amount: float, *labels: str) -> None:
        """Add to the sum of these labels."""
        self.values[labels] = self.values.get(labels, 0.0) + amount

    def lines(self) -> list[str]:
        """Return the lines of this counter."""
        found = [f"# HELP {self.name} {self.about}", f"# TYPE {self.name} counter"]
        return found + [f"{self.name}{_braced(self.labels, at)} {value:.12g}" for at, value in self.values.items()]


@dataclass
class Histogram:
    """How many requests took how many seconds, for each path."""

    name: str
    about: str
    label: str
    counts: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    sums: dict[str, float] = field(default_factory=dict[str, float])

    def observe(self, seconds: float, label: str) -> None:
        """Count one request."""
        self.counts.setdefault(label, [0] * (len(_SECONDS) + 1))[bisect_left(_SECONDS, seconds)] += 1
        self.sums[label] = self.sums.get(label, 0.0) + seconds

    def lines(self) -> list[str]:
        """Return the lines of this histogram."""
        found = [f"# HELP {self.name} {self.about}", f"# TYPE {self.name} histogram"]
        for label, counts in self.counts.items():
            total = 0
            for bound, count in zip((*_SECONDS, "+Inf"), counts, strict=True):
                total += count
                found.append(f"{self.name}_bucket{_braced((self.label, 'le'), (label, str(bound)))} {total}")
            found.append(f"{self.name}_sum{_braced((self.label,), (label,))} {self.sums[label]:.6g}")
            found.append(f"{self.name}_count{_braced((self.label,), (label,))} {total}")
        return found


@dataclass
class Metrics:
    """Everything that is counted."""

    requests: Counter = field(
        default_factory=lambda: Counter("evomerge_requests_total", "Requests, by status.", ("path", "status"))
    )
    seconds: Histogram = field(
        default_factory=lambda: Histogram("evomerge_request_seconds", "Seconds to a whole answer.", "path")
    )
    degraded: Counter = field(
        default_factory=lambda: Counter("evomerge_degraded_total", "Answers made without a member that failed.", ())
    )
    asked: Counter = field(
        default_factory=lambda: Counter("evomerge_member_requests_total", "Requests to members.", ("member",))
    )
    failed: Counter = field(
        default_factory=lambda: Counter(
            "evomerge_member_failures_total", "Requests that a member did not answer.", ("member", "kind")
        )
    )
    member_seconds: Counter = field(
        default_factory=lambda: Counter("evomerge_member_seconds_total", "Seconds that answers took.", ("member",))
    )
    tokens: Counter = field(
        default_factory=lambda: Counter("evomerge_tokens_total", "Tokens of members.", ("member", "kind"))
    )
    usd: Counter = field(
        default_factory=lambda: Counter("evomerge_usd_total", "What members cost, in USD.", ("member",))
    )

    def text(self, gauges: Mapping[str, float]) -> str:
        """Return all of it, and these gauges."""
        lines = [f"# TYPE {name} gauge\n{name} {value:g}" for name, value in gauges.items()]
        kinds = (
            self.requests, self.seconds, self.degraded, self.asked, self.failed, self.member_seconds, self.tokens,
            self.usd,
        )  # fmt: skip
        return "\n".join([*lines, *(line for kind in kinds for line in kind.lines())]) + "\n"


def _braced(names: tuple[str, ...], values: Labels) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
