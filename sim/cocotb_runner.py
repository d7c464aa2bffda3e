"""Runs cocotb test modules against Verilated Amaranth designs.

cocotb's own build step makes every signal of a design readable and writable, which halves the speed of the simulation
and doubles the time of the build. Here the ports alone are visible, unless more is asked for, and builds come from the
same cache as those of the virtual board.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import cocotb_tools.config
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilator

from sim.board.verilate import BUILD, ROOT, Design, Recipe, parse_pins

__all__ = ["build_simulator", "run_cocotb"]

#: Modules written against cocotb 1 that work on 2.1 and say so with a warning on every call.
_DEPRECATED = ("cocotbext.eth.gmii", "cocotbext.eth.reset", "cocotbext.eth.version", "cocotb_bus.drivers")


def build_simulator(design: Design, *, waves: bool = False, public: bool = False) -> Path:
    """Path of a simulator of a design that cocotb can drive; built once, by whichever process comes first.

    Parameters
    ----------
    design : Design
    waves : bool
        Able to write waveforms.
    public : bool
        Make every signal visible, not the ports alone. Slower.

    Raises
    ------
    BuildError
        A tool is missing, or a step failed.
    """
    text = design.verilog().read_text()
    control = ["`verilator_config", *(f'public_flat_rw -module "top" -var "{name}"' for name in parse_pins(text))]
    libraries = cocotb_tools.config.libs_dir
    return Recipe(
        name=f"{design.name}-cocotb" + ("-waves" if waves else "") + ("-public" if public else ""),
        product="top",
        top="top",
        files={"top.v": text} if public else {"top.v": text, "ports.vlt": "\n".join(control) + "\n"},
        options=("--vpi", "--timescale", "1ns/1ps", *["--public-flat-rw"] * public, *["--trace-vcd"] * waves),
        sources=(Path(cocotb_tools.config.share_dir) / "lib" / "verilator" / "verilator.cpp",),
        optimise=("-O1",),      # cocotb takes most of the time, so compile fast rather than run fast
        compile_flags=(),
        link_flags=(f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lcocotbvpi_verilator")).make()


def run_cocotb(design: Design, module: str, *, testcase: str | None = None, seed: int | None = None,
               environment: Mapping[str, str] | None = None, waves: bool | None = None, public: bool = False) -> None:
    """Run the cocotb tests of a module against a design; for use inside a pytest test.

    Parameters
    ----------
    design : Design
        The simulated top; cocotb knows it as ``dut``.
    module : str
        Import path of the module with the ``@cocotb.test()`` functions.
    testcase : str
        Only this one of them.
    seed : int
        Of Python's random numbers in the simulation; cocotb takes the time of day and prints it if not given.
    environment : Mapping[str, str]
        Variables that the tests read.
    waves : bool
        Write ``dump.vcd`` beside the log; from the environment variable ``WAVES`` if not given.

    Raises
    ------
    AssertionError
        A test failed, or there was none; the message ends with the log of the simulation.
    """
    if waves is None:
        waves = os.environ.get("WAVES", "0") not in ("", "0")
    simulator = build_simulator(design, waves=waves, public=public)
    directory = BUILD / "cocotb" / re.sub(r"\W+", "_", f"{design.name} {module} {testcase or ''}").strip("_")
    directory.mkdir(parents=True, exist_ok=True)
    log, results = directory / "simulation.log", directory / "results.xml"
    results.unlink(missing_ok=True)
    ignored = ",".join(f"ignore::DeprecationWarning:{name}" for name in _DEPRECATED)
    runner = Verilator()
    failure = None
    try:
        runner.test(
            test_module=module, hdl_toplevel="top", hdl_toplevel_lang="verilog", testcase=testcase, seed=seed,
            build_dir=simulator.parent, test_dir=directory, results_xml=str(results), log_file=log, waves=waves,
            extra_env={"PYTHONWARNINGS": ignored, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **(environment or {})})
    except (SystemExit, RuntimeError) as error:
        failure = f"the simulator ended with: {error}"
    tests, failed = get_results(results) if results.exists() else (0, 0)
    if failed:
        failure = f"{failed} of {tests} tests failed"
    elif not tests:
        failure = "no test was run"
    if failure:
        text = log.read_text() if log.exists() else ""
        raise AssertionError(f"{module} on {design.top}: {failure}; log {log}:\n" + "\n".join(text.splitlines()[-60:]))
