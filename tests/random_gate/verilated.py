"""The chain of the path as a shared library: cases in as rows, what the gateware says of them out as rows."""

import ctypes
from pathlib import Path

import numpy as np

from sim.board.cycle import EVERY_EDGE
from sim.board.verilate import WHOLE, Design, Recipe
from tests.hdl.quote.chain import INPUTS, OUTPUTS

__all__ = ["GIVEN", "SEEN", "VerilatedChain"]

DRIVER = Path(__file__).with_name("driver.cpp")

#: A row a case: what stands on each input in the cycles in which it counts.
GIVEN = np.dtype([(name, np.int64) for name in INPUTS])
#: A row a result: what is on each output in the first cycle in which it is right.
SEEN = np.dtype([(name, np.int64) for name in OUTPUTS])


def _columns(verilog):
    inputs = " \\\n    ".join(f"X({name}, {n}, {pin.shape.width}, {pin.first}, {pin.last})"
                              for n, (name, pin) in enumerate(INPUTS.items()))
    outputs = " \\\n    ".join(f"X({name}, {n}, {pin.shape.width}, {pin.shape.signed:d}, {pin.first})"
                               for n, (name, pin) in enumerate(OUTPUTS.items()))
    cycles = [pin.first for pin in INPUTS.values()] + [pin.first for pin in OUTPUTS.values()]
    return (f"#define INPUTS(X) \\\n    {inputs}\n#define OUTPUTS(X) \\\n    {outputs}\n"
            f"#define GIVEN {len(INPUTS)}\n#define SEEN {len(OUTPUTS)}\n"
            f"constexpr int FIRST_CYCLE = {min(cycles)}, LAST_CYCLE = {max(cycles)};\n"
            + "#define EVERY_EDGE_IS_A_CYCLE\n" * (EVERY_EDGE in verilog))


def build(progress=lambda share, what: None):
    """Path of the library, compiled now unless it is there already. Raises :class:`sim.board.verilate.BuildError`."""
    progress(0.0, "generating Verilog")
    verilog = Design("tests.hdl.quote.chain:PinnedChain").board().read_text()
    return Recipe(
        name="pinnedchain", product="chain.so", top="board",
        files={"columns.h": _columns(verilog), "design.v": verilog}, options=WHOLE, sources=(DRIVER,),
        optimise=("-O2", "-fno-tree-vectorize"),
        compile_flags=("-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden"),
        link_flags=("-shared",)).make(progress)


class VerilatedChain:
    """The Verilated chain. Use it in a ``with`` statement, or call :meth:`close`."""

    def __init__(self, progress=lambda share, what: None):
        library = ctypes.CDLL(str(build(progress)))
        pointer = ctypes.c_void_p
        library.chain_new.restype, library.chain_new.argtypes = pointer, []
        library.chain_free.restype, library.chain_free.argtypes = None, [pointer]
        library.chain_run.restype = None
        library.chain_run.argtypes = [pointer, ctypes.c_int64, pointer, pointer, ctypes.c_uint64]
        self._library, self._chain = library, library.chain_new()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self._chain:
            self._library.chain_free(self._chain)
        self._chain = None

    def run(self, given, seed):
        """Evaluate every row of ``given`` (an array of :data:`GIVEN`); returns an array of :data:`SEEN`.

        ``seed``: of the noise on inputs in cycles in which they do not count, of the first row; that of the next row is
        greater by one.
        """
        if given.dtype != GIVEN:
            raise TypeError(f"rows have the fields {given.dtype.names}, must have {GIVEN.names}")
        given, seen = np.ascontiguousarray(given), np.zeros(len(given), SEEN)
        self._library.chain_run(self._chain, len(given), given.ctypes.data, seen.ctypes.data, seed)
        return seen
