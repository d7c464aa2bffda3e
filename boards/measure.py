"""How fast one component is by itself: placed and routed alone, with registers around all its ports.

Inputs come from the registers of a long shift register, outputs go to registers of their own and from there into
another one, so that four pins suffice and every path that is timed begins and ends in a register. What surrounds the
component in a whole design (fan-out, distance, a full device) is missing: expect less there.
"""

import importlib
import json
import re
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, ClockSignal, Module, Mux, Signal, Value
from amaranth.lib import wiring

from boards import flow

__all__ = ["Surrounded", "load", "measure"]


class Surrounded(wiring.Component):
    """A component between registers.

    Members
    -------
    clk : In(1)
    shift_in : In(1), load : In(1), shift_out : Out(1)
    """

    clk: wiring.In(1)
    shift_in: wiring.In(1)
    load: wiring.In(1)
    shift_out: wiring.Out(1)

    def __init__(self, component):
        self.component = component
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        # Registers have their values from the configuration; the boards' domains have no reset either.
        m.domains.sync = ClockDomain("sync", reset_less=True)
        m.d.comb += ClockSignal().eq(self.clk)
        m.submodules.component = component = self.component
        inputs, outputs = [], []
        for _, member, port in component.signature.flatten(component):
            (inputs if member.flow == wiring.In else outputs).append(Value.cast(port))
        load = Signal()
        m.d.sync += load.eq(self.load)
        bit = Signal(name="shift_in_ff")
        m.d.sync += bit.eq(self.shift_in)
        for port in inputs:
            # Named, so that a critical path tells the port.
            register = Signal(len(port), name="in_" + _name(port))
            m.d.sync += register.eq((register << 1) | bit)
            m.d.comb += port.eq(register)
            bit = register[-1] if len(port) else bit
        for port in outputs:
            captured, chain = (Signal(len(port), name=prefix + _name(port)) for prefix in ("out_", "chain_"))
            m.d.sync += [captured.eq(port), chain.eq(Mux(load, captured, (chain << 1) | bit))]
            bit = chain[-1] if len(port) else bit
        m.d.sync += self.shift_out.eq(bit)
        return m


def _name(port):
    return re.sub(r"\W", "_", getattr(port, "name", "port"))


def load(path, arguments):
    """Component from ``package.module:Class`` and ``{keyword: value}``."""
    module, _, name = path.partition(":")
    if not name:
        raise ValueError(f"{path!r} must be of the form package.module:Class")
    return getattr(importlib.import_module(module), name)(**arguments)


def parse_arguments(texts):
    """``["a=1", "b=true", "c=text"]`` to a dictionary; values are JSON where they can be read as such."""
    out = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} must be of the form name=value")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out


def measure(path, arguments, device, *, target_mhz=125.0, seed=1, options=(), synth_options=(), directory=None,
            progress=None):
    """Place and route a component alone; returns :class:`boards.flow.Figures`. It never fails for its speed."""
    text = " ".join([path, *(f"{k}={v}" for k, v in arguments.items()), device])
    directory = Path(directory or flow.BUILD / "time" / re.sub(r"\W+", "_", text))
    source = rtlil.convert(Surrounded(load(path, arguments)), name="top")
    netlist, seconds = flow.synthesise_cached(source, directory, options=synth_options, progress=progress)
    figures = flow.place_and_route(netlist, flow.DEVICES[device], target_mhz=target_mhz, seed=seed, options=options,
                                   check_timing=False, progress=progress)
    figures.seconds["synthesis"] = round(seconds, 1)
    return figures
