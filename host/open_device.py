"""The device that a user names: a serial port, or a network interface."""

from .ethernet_device import EthernetDevice
from .serial_device import SerialDevice

__all__ = ["is_ethernet", "open_device"]


def is_ethernet(name):
    """``name`` is that of a network interface (``eth:INTERFACE`` or ``eth:INTERFACE/MAC``)."""
    return name.startswith("eth:")


def open_device(name, baud):
    """The :class:`~host.device.Device` that ``name`` names; ``baud`` is for serial ports.

    Raises :class:`~host.device.DeviceError`.
    """
    return EthernetDevice(name) if is_ethernet(name) else SerialDevice(name, baud)
