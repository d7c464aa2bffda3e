"""Random cases through the Verilated chain and the model, compared field by field; what is found is counted."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from hdl.control.registers import GATES as NAMES
from tests.random_gate import model, variants
from tests.random_gate.lanes import Lanes
from tests.random_gate.promises import broken, overexposed
from tests.random_gate.verilated import SEEN

__all__ = ["BLOCK", "LANES", "Examined", "Result", "repeat", "run", "steps"]

#: Instruments side by side, and cases of each one behind the other; a block of them begins with nothing quoted.
LANES, STEPS = 2048, 32
BLOCK = LANES * STEPS


@dataclass(frozen=True)
class Examined:
    """A case of number ``index``: its fields, and of the outputs those that differ, each as (what the gateware says,
    what the model says); ``promises`` that it breaks."""

    index: int
    case: dict
    outputs: dict
    promises: list


@dataclass(frozen=True)
class Step:
    """The next case of every lane: ``cases``, what the gateware (``seen``) and the model (``want``, ``failed``) say of
    them, and where something is wrong: arrays of bool by the name of the output, or by the promise. ``happened``: as
    :attr:`Lanes.happened`, since the block began."""

    index: int
    cases: np.ndarray
    seen: np.ndarray
    want: np.ndarray
    failed: list
    wrong: dict
    promises: dict
    happened: dict

    def differs(self):
        return np.any([*self.wrong.values(), *self.promises.values()], axis=0)

    def examine(self, n):
        """The case of lane ``n``."""
        return Examined(self.index + n, dict(zip(self.cases.dtype.names, self.cases[n].tolist(), strict=True)),
                        {name: (int(self.seen[name][n]), int(self.want[name][n]))
                         for name, wrong in self.wrong.items() if wrong[n]},
                        [what for what, broken in self.promises.items() if broken[n]])


@dataclass
class Result:
    """What a run has found.

    ``differing``: cases with an output that is not the model's, or a promise that is not kept; ``first`` of them.
    ``gates``: by name, sides that passed, that passed at the exact limit, that failed, and that failed nothing else.
    ``outcomes``: cases by what came of them. ``happened``: what happened between cases.
    """

    seed: int
    cases: int = 0
    differing: int = 0
    first: Examined | None = None
    gates: dict = field(default_factory=dict)
    outcomes: dict = field(default_factory=dict)
    happened: dict = field(default_factory=dict)


@cache
def _narrow():
    return variants.tightened()


def _add(counts, name, amount):
    counts[name] = counts.get(name, 0) + int(amount)


def _tally(result, step):
    """Count what a step of cases has reached."""
    c, want = model.columns(step.cases), step.want
    narrow_book, *sides = _narrow().views(c)
    for bit in model.GATES:
        counts = result.gates.setdefault(NAMES[bit][0], {})
        for side, reasons in zip(sides, step.failed, strict=True):
            fails = reasons >> bit & 1 != 0
            close = ~_narrow().GATES[bit](c, narrow_book, side)
            _add(counts, "passed", np.count_nonzero(~fails))
            _add(counts, "at the limit", np.count_nonzero(~fails & close))
            _add(counts, "failed", np.count_nonzero(fails))
            _add(counts, "alone", np.count_nonzero(reasons == 1 << bit))
    counts, blocked = result.gates.setdefault(NAMES[model.RATE][0], {}), want["rate_blocked"] != 0
    passes = model.g14_rate(c)
    _add(counts, "passed", np.count_nonzero(passes))
    _add(counts, "at the limit", np.count_nonzero(passes & ~_narrow().g14_rate(c)))
    _add(counts, "failed", np.count_nonzero(~passes))
    _add(counts, "alone", np.count_nonzero(blocked & (want["reasons"] == 1 << model.RATE)))
    leaves, new = want["emit"] != 0, want["is_new"] != 0
    for name, which in (("replaced", leaves & new), ("taken away", leaves & ~new),
                        ("held", ~leaves & (want["reasons"] == 0)), ("stopped", ~leaves & (want["reasons"] != 0)),
                        ("both sides leave", leaves & (want["bid_quantity"] > 0) & (want["ask_quantity"] > 0)),
                        ("clamped into the window", leaves & (want["clamped"] != 0)),
                        ("would have met in the window", want["met"] != 0)):
        _add(result.outcomes, name, np.count_nonzero(which))


def steps(chain, seed, decide, begin=0):
    """Steps without end, from the block of case ``begin`` on, each a :class:`Step`."""
    block = begin // BLOCK
    while True:
        lanes = Lanes(np.random.default_rng([seed, block]), LANES)
        for step in range(STEPS):
            index = block * BLOCK + step * LANES
            cases = lanes.step().copy()
            before = {side: lanes.exposure(side) for side in ("bid", "ask")}
            seen = chain.run(model.given(cases), (seed << 32) + index & (1 << 64) - 1)
            want, failed = decide(cases)
            lanes.follow(seen)
            yield Step(index, cases, seen, want, failed, {name: seen[name] != want[name] for name in SEEN.names},
                       broken(cases, seen) | overexposed(lanes, before), dict(lanes.happened))
        block += 1


def run(chain, seed, cases, *, decide=model.decide, progress=lambda done: None):
    """Run at least ``cases`` random cases, in whole steps of :data:`LANES`. Returns a :class:`Result`.

    Parameters
    ----------
    chain : :class:`tests.random_gate.verilated.VerilatedChain`.
    seed : of everything, 0 or more. The same seed gives the same cases, whatever their number.
    decide : what to hold the gateware against: as :func:`tests.random_gate.model.decide`.
    progress : called with the number of cases that are done.
    """
    result, happened = Result(seed), []
    for step in steps(chain, seed, decide):
        differs = step.differs()
        if differs.any():
            result.differing += int(np.count_nonzero(differs))
            result.first = result.first or step.examine(int(np.argmax(differs)))
        _tally(result, step)
        result.cases += LANES
        progress(result.cases)
        if step.index % BLOCK == 0:
            happened.append({})
        happened[-1] = step.happened
        if result.cases >= cases:
            break
    for of_block in happened:
        for what, number in of_block.items():
            _add(result.happened, what, number)
    return result


def repeat(chain, seed, index):
    """One case of a run again, with all that came before it in its block. Returns :class:`Examined`."""
    for step in steps(chain, seed, model.decide, index):
        if step.index + LANES > index:
            return step.examine(index - step.index)
    raise AssertionError("steps have no end")
