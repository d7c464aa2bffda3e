# amaranth: UnusedElaboratable=no
"""What a proof is made of: a component, its inputs free, and what must hold of it."""

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.hdl import Assume, Elaboratable, Module, Signal
from amaranth.lib import wiring

__all__ = ["Obligations", "Proof", "before", "stands"]


@dataclass(frozen=True)
class Proof:
    """A property of the gateware.

    Parameters
    ----------
    name : str
        A word with underscores.
    title, gates : str
        What holds, in a few words; the gates that it is about.
    claim : str
        What holds, in words.
    component : callable
        Makes the component that it holds of.
    claims : callable
        Called with the module to put ``Assert``, ``Assume`` and ``Cover`` into, the component and its submodules.
    depth : int
        Cycles of the induction, or of the bounded proof.
    cover_depth : int
        Cycles within which everything that the claim speaks of can happen.
    bounded : str
        Empty: it holds for ever, by induction. Else why it was only shown for ``depth`` cycles from reset on.
    cut : names of submodules whose outputs may be anything at any time.
    assumes : str
        What is taken for granted of the inputs. Empty: nothing.
    """

    name: str
    title: str
    gates: str
    claim: str
    component: Callable
    claims: Callable
    depth: int
    cover_depth: int
    bounded: str = ""
    cut: tuple[str, ...] = ()
    assumes: str = ""

    def obligations(self):
        return Obligations(self.component(), self.claims)

    @property
    def component_name(self):
        """Of the component's class."""
        return type(self.component()).__name__

    @property
    def file(self):
        """Where the claims stand, below the root."""
        return f"{self.claims.__module__.replace('.', '/')}.py"


class Obligations(Elaboratable):
    """A component with inputs that may be anything at any time, and what must hold of it."""

    def __init__(self, component, claims):
        self.component, self.claims = component, claims

    def elaborate(self, platform):
        m = Module()
        inner = self.component.elaborate(platform)
        m.submodules.dut = inner
        self.claims(m, self.component, inner.submodules)
        return m

    @property
    def ports(self):
        """The component's inputs."""
        leaves = self.component.signature.flatten(self.component)
        return [getattr(value, "as_value", lambda value=value: value)()
                for _, member, value in leaves if member.flow == wiring.In]


def before(m, value, name, *, init=0):
    """``value`` as it was in the cycle before; ``init`` in the first one."""
    register = Signal(value.shape(), name=f"before_{name}", init=init)
    m.d.sync += register.eq(value)
    return register


def stands(m, value, name, when):
    """Taken for granted: where ``when`` is 1, ``value`` is as it was in the cycle before."""
    m.d.comb += Assume(~when | (value == before(m, value, name)))
