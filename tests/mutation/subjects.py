"""What is mutated, and what is held against each mutant, in which order."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from amaranth.back import rtlil

__all__ = ["ROOT", "SUBJECTS", "Proved", "Subject", "Tested"]

ROOT = Path(__file__).resolve().parents[2]
#: All of the plug-ins that these tests need; assertions that need not say what was wrong.
_QUICK = ("-x", "-q", "--tb=native", "--assert=plain", "--disable-plugin-autoload", "-p", "pytest_timeout",
          "-p", "no:cacheprovider", "-p", "no:unraisableexception")


@dataclass(frozen=True)
class Tested:
    """Unit tests: those of ``path``, or the ones of them that the expression ``only`` picks.

    ``hang_counts``: one that takes much longer than it should has failed.
    """

    path: str
    only: str = ""
    hang_counts = True

    @property
    def name(self):
        """As it is told of."""
        return self.path

    def passes(self, _folder):
        return pytest.main([*_QUICK, str(ROOT / self.path), *(["-k", self.only] if self.only else [])]) == 0


@dataclass(frozen=True)
class Proved:
    """A proof of ``tests/proof``, by its name. One that takes long has not failed: it is no answer."""

    proof: str
    hang_counts = False

    @property
    def name(self):
        return f"proof {self.proof}"

    def passes(self, folder):
        """Whether it is found again; that a case of it is out of reach fails it, too."""
        from tests.proof import PROOFS  # imports what is mutated
        from tests.proof.solver import solve

        proof = next(proof for proof in PROOFS if proof.name == self.proof)
        for mode, depth in (("bmc" if proof.bounded else "prove", proof.depth), ("cover", proof.cover_depth)):
            obligations = proof.obligations()
            if not solve(obligations, obligations.ports, folder / self.proof, mode=mode, depth=depth,
                         cut=proof.cut).holds:
                return False
        return True


@dataclass(frozen=True)
class Subject:
    """A file.

    Parameters
    ----------
    file : str
        Below the root.
    components : callable
        Called with the module: the components in it, small. A fault that does not change them is none.
    checks : tuple of Tested and Proved
        In the order in which they are tried: the cheapest and likeliest first.
    left_out : operators that mean nothing for it.
    """

    file: str
    components: Callable
    checks: tuple
    left_out: tuple[str, ...] = ()

    @property
    def module(self):
        return self.file.removesuffix(".py").replace("/", ".")

    def rtlil(self):
        """Its components as they are elaborated, one text each, without a trace of the source. Imports the module."""
        module = importlib.import_module(self.module)
        return [rtlil.convert(component, emit_src=False) for component in self.components(module)]


#: Where each evaluation writes every register before anything looks at it: how they start does not matter.
_EACH_TIME = ("reset",)


def _random_first(path):
    """A file of tests in two parts: one simulation of everything at random notices most faults in its first cycles."""
    return Tested(path, "random"), Tested(path, "not random and not converts")


#: The gate. A new file of it joins with what tests it.
SUBJECTS = (
    # `limits_as_defined` is left out: it takes minutes, and the tests state the same definitions.
    Subject("hdl/gate/limits.py", lambda module: [module.Limits()], (
        Tested("tests/hdl/gate/test_limits.py", "definitions"),
        Tested("tests/hdl/gate/test_limits.py", "not definitions and not converts")), _EACH_TIME),
    Subject("hdl/gate/hypotheses.py", lambda module: [module.Hypotheses()], (
        Tested("tests/hdl/gate/test_hypotheses.py", "verdicts"),
        Tested("tests/hdl/gate/test_hypotheses.py", "overflows")), _EACH_TIME),
    Subject("hdl/gate/gate.py", lambda module: [module.Gate()], (
        Tested("tests/hdl/gate/test_gate.py", "not converts"), Proved("candidate_as_defined")), _EACH_TIME),
    Subject("hdl/gate/buckets.py", lambda module: [module.TokenBuckets(3)], (
        *_random_first("tests/hdl/gate/test_buckets.py"), Proved("session_tokens"))),
    Subject("hdl/gate/exposure.py", lambda module: [module.Exposure(1), module.Exposure(3)],
            (*_random_first("tests/hdl/gate/test_exposure.py"), Proved("exposure_counts"))),
    Subject("hdl/gate/state.py", lambda module: [module.TradingState()], (
        *_random_first("tests/hdl/gate/test_state.py"), Proved("kill_latch"), Proved("dead_man"),
        Proved("reset_blocks"))),
    Subject("hdl/gate/references.py", lambda module: [module.References(1), module.References(3)], (
        Tested("tests/hdl/gate/test_references.py", "bands"),
        Tested("tests/hdl/gate/test_references.py", "not bands and not converts"))),
    Subject("hdl/gate/drift.py", lambda module: [module.Drift(1), module.Drift(3)], (
        *_random_first("tests/hdl/gate/test_drift.py"),)),
    Subject("hdl/gate/life.py", lambda module: [module.QuoteLife(1), module.QuoteLife(3)], (
        *_random_first("tests/hdl/gate/test_life.py"),)),
    Subject("hdl/gate/positions.py", lambda module: [module.Positions()], (
        Tested("tests/hdl/gate/test_positions.py", "not converts"),), _EACH_TIME),
    Subject("hdl/gate/load.py", lambda module: [module.Load(1), module.Load(3)], (
        *_random_first("tests/hdl/gate/test_load.py"),)),
    Subject("hdl/gate/account.py", lambda module: [module.Account()], (
        Tested("tests/hdl/gate/test_account.py", "not converts"),)),
    Subject("hdl/gate/duplicates.py", lambda module: [module.Duplicates()], (
        Tested("tests/hdl/gate/test_duplicates.py", "not converts"),)),
    Subject("hdl/gate/holds.py", lambda module: [module.Holds(1), module.Holds(5)], (
        Tested("tests/hdl/gate/test_holds.py"),)),
    Subject("hdl/gate/answers.py", lambda module: [module.Answers(3)], (
        Tested("tests/hdl/gate/test_answers.py", "model or wrong"),
        Tested("tests/hdl/gate/test_answers.py", "not model and not wrong and not converts"))),
    Subject("hdl/gate/bursts.py", lambda module: [module.FillBurst(3), module.RefusalStorm(3)], (
        *_random_first("tests/hdl/gate/test_bursts.py"), Proved("refusals_held"))),
    Subject("hdl/gate/repeats.py", lambda module: [module.RepeatedExecution(1), module.RepeatedExecution(3)], (
        *_random_first("tests/hdl/gate/test_repeats.py"), Proved("repeats_held"))),
    Subject("hdl/gate/rolling.py", lambda module: [module.RollingSums(3, {"lots": 6, "fills": 3})], (
        *_random_first("tests/hdl/gate/test_rolling.py"),)),
    Subject("hdl/gate/emission.py", lambda module: [module.Emission()], (
        Tested("tests/hdl/gate/test_emission.py", "not converts"),)),
    Subject("hdl/control/integrity.py", lambda module: [module.Integrity(2, limits=3, row_words=4)], (
        Tested("tests/hdl/control/test_integrity.py", "not converts"),)),
    Subject("hdl/gate/window.py", lambda module: [module.Window()], (
        Tested("tests/hdl/gate/test_window.py", "random"), Proved("window_contains"))),
)
