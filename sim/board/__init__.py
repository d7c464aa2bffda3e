"""The virtual board: the Verilated core as a live device with Ethernet ports and a serial link."""

from sim.board.board import BoardError, Stop, TxFrame, VirtualBoard
from sim.board.verilate import BuildError, Design

__all__ = ["BoardError", "BuildError", "Design", "Stop", "TxFrame", "VirtualBoard"]
