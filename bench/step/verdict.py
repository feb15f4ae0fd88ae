"""Is the training step fed, and if not, what keeps it from it? In words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

# Share of the rate with data on the device that counts as fed.
AIM = 0.95
# What a further step of look-ahead has to bring to be more than noise.
RISE = 1.03

Binds = Literal["nothing", "loader", "cores", "look-ahead", "sharing"]


@dataclass(frozen=True)
class Measured:
    """Medians of the modes.

    Attributes:
        device: Steps a second with data on the device.
        loader: Steps a second that the loader alone would feed.
        rates: Look-ahead -> steps a second.
        waiting: Look-ahead -> share of the time spent waiting for clips.
        device_cpu: CPU seconds of a step with data on the device.
        loader_cpu: CPU seconds of the clips of a step.
        cores: Cores that there are.
    """

    device: float
    loader: float
    rates: Mapping[int, float]
    waiting: Mapping[int, float]
    device_cpu: float
    loader_cpu: float
    cores: int


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        reached: Whether the best look-ahead reaches the aim.
        lookahead: The smallest one that does, else the quickest one.
        share: Of the rate with data on the device that it reaches.
        binds: What keeps it from more.
        cores_limit: Steps a second that the cores have CPU time for, step and loader together.
        words: All this in sentences.
    """

    reached: bool
    lookahead: int
    share: float
    binds: Binds
    cores_limit: float
    words: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(found: Measured, aim: float = AIM) -> Verdict:
    """Holds the modes against each other."""
    shares = {depth: rate / found.device for depth, rate in found.rates.items()}
    reaching = sorted(depth for depth, share in shares.items() if share >= aim)
    best = reaching[0] if reaching else max(shares, key=lambda depth: shares[depth])
    limit = found.cores / max(found.device_cpu + found.loader_cpu, 1e-9)
    told = f"With look-ahead {best} the step runs at {100 * shares[best]:.0f} % of its rate with data on the device"
    binds: Binds
    if reaching:
        binds, words = "nothing", f"{told}: the aim of {100 * aim:.0f} % is reached. Data costs it nothing to speak of."
        slower = [f"{100 * shares[d]:.0f} % with {d}" for d in sorted(shares) if shares[d] < aim]
        if slower:
            words += f" It is not with every look-ahead: {', '.join(slower)}."
    else:
        binds, reason = _reason(found, best, aim, limit)
        waited = 100 * found.waiting[best]
        words = f"{told}; the aim is {100 * aim:.0f} %. It waits for clips {waited:.0f} % of the time. {reason}"
    return Verdict(bool(reaching), best, shares[best], binds, limit, words)


def _reason(found: Measured, best: int, aim: float, limit: float) -> tuple[Binds, str]:
    needs = (
        f"a step needs {found.device_cpu:.2f} s of CPU time and its clips {found.loader_cpu:.2f} s, of which "
        f"{found.cores} cores have enough for {limit:.2f} steps/s"
    )
    if found.loader < aim * found.device:
        words = (
            f"The loader binds: alone it gives clips for {found.loader:.2f} steps/s, and the step could take "
            f"{found.device:.2f}."
        )
        if limit < aim * found.loader:
            words += f" Beside the step it shares the cores: {needs}."
        return "loader", words + " `python -m bench stages` says which stage of it, `bench sweep` which setting helps."
    if limit < aim * found.device:
        return "cores", (
            f"The cores bind: the loader alone would give clips for {found.loader:.2f} steps/s, but it shares the "
            f"cores with the step: {needs}."
        )
    depths, quick = sorted(found.rates), f"The loader alone is quick enough, with {found.loader:.2f} steps/s"
    if found.waiting[best] < (1 - found.rates[best] / found.device) / 2:
        return "sharing", (
            f"{quick}, and the step seldom waits for it: it is the step that is slower beside the loader, with which "
            "it shares the device, its memory and the interpreter. The trace (--trace) shows where."
        )
    if best == depths[-1] and (len(depths) == 1 or found.rates[best] > RISE * found.rates[depths[-2]]):
        rise = f" The rate still rises at look-ahead {best}." if len(depths) > 1 else ""
        return "look-ahead", f"The look-ahead is too short. {quick}, but its clips come too late.{rise} Try more."
    return "sharing", (
        f"{quick}, but not beside the step, and a longer look-ahead does not help: they share the device, its memory "
        "and the interpreter. The trace (--trace) shows where."
    )


def disturbed(others: float, cores: int) -> str:
    """A warning where other processes had more than a quarter of the cores; empty where not.

    Args:
        others: CPUs that they kept busy.
        cores: Cores of the machine.
    """
    if others <= cores / 4:
        return ""
    return (
        f"Other processes kept {others:.1f} of {cores} cores busy meanwhile: these figures are too low, measure again "
        "on a quiet machine."
    )
