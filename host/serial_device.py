"""A card behind a serial port: a real UART, or the pseudo-terminal of the virtual board."""

import select

import serial

from .device import Device, DeviceError


class SerialDevice(Device):
    """Device over pyserial.

    Parameters
    ----------
    port : path of the serial port.
    baud : bits a second; a pseudo-terminal ignores it.
    """

    def __init__(self, port, baud=3_000_000):
        super().__init__()
        self.port = str(port)
        try:
            self._serial = serial.Serial(self.port, baud, timeout=0, write_timeout=0, exclusive=True)
        except (serial.SerialException, ValueError, OSError) as error:
            raise DeviceError(f"cannot open serial port {self.port}: {error}") from None

    def _receive(self):
        try:
            return self._serial.read(65536)
        except (serial.SerialException, OSError, TypeError) as error:
            raise DeviceError(f"serial port {self.port} is gone: {error}") from None

    def _transmit(self, data):
        # pyserial spins on a full port without a time-out, so it is asked only when there is room.
        try:
            if not select.select([], [self._serial.fd], [], 0)[1]:
                return 0
            return self._serial.write(data)
        except (serial.SerialException, OSError, TypeError, ValueError) as error:
            raise DeviceError(f"serial port {self.port} is gone: {error}") from None

    def fileno(self):
        return self._serial.fileno()

    def close(self):
        self._serial.close()
