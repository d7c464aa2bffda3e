"""A client of the simulated exchange, in memory: what the tests speak Starbase with."""

from hdl.layout import sbe
from sim.venue.config import ClientSpec, InstrumentSpec, MmpGroupSpec, VenueConfig
from sim.venue.session import HEADER, IS_RESEND, frame

SCHEMA = sbe.load("starbase_orders")
SECOND = 10 ** 9
E9 = 10 ** 9
BTC, ETH = 1001, 1002


def make_config(**changes):
    """Two instruments (tick 0.5 with lots of 10, tick 0.05 with lots of 0.1), two clients, one group each."""
    values = {
        "instruments": (
            InstrumentSpec(BTC, "BTC-PERPETUAL", 500_000_000, lot_mult=10, max_lots=1000, band_low_e9=10_000 * E9,
                           band_high_e9=100_000 * E9, currency_pair_id=1),
            InstrumentSpec(ETH, "ETH-PERPETUAL", 50_000_000, lot_mult=1, lot_exp=-1, currency_pair_id=2)),
        "groups": (MmpGroupSpec(7, "alice", quantity_limit=1e9), MmpGroupSpec(8, "bob", quantity_limit=1e9),
                   MmpGroupSpec(9, "alice", enabled=False)),
        "clients": (ClientSpec("alice", "open sesame"), ClientSpec("bob", "swordfish")),
    }
    return VenueConfig(**(values | changes))


class Client:
    """One connection to a gateway: sends messages with the next sequence number, decodes what comes back."""

    def __init__(self, gateway, name="alice", secret="open sesame", now_ns=0):
        self.gateway, self.name, self.secret, self.now_ns = gateway, name, secret, now_ns
        self.session = gateway.connect(now_ns)
        self.sequence = 1

    def raw(self, data):
        self.session.receive(data, self.now_ns)
        return self.take()

    def send(self, message, values=None, groups=None, *, sequence=None, version=16, flags=0, pad=False, body=None,
             last_processed=0):
        """Send a message; returns what the gateway answered, decoded (see :meth:`take`)."""
        body = SCHEMA[message].encode(values, groups) if body is None else body
        number = self.sequence if sequence is None else sequence
        self.sequence = number + 1
        return self.raw(frame(message, body, sequence=number, last_processed=last_processed, now_ns=self.now_ns,
                              version=version, flags=flags, pad=pad))

    def logon(self, **changes):
        values = {"clientId": self.name, "secret": self.secret, "resetSeqNum": 1, "schemaVersion": 16,
                  "cancelOnDisconnect": 0} | changes
        return self.send("Logon", values)

    def take(self):
        """List of decoded messages: field values, groups, and ``type``, ``seq``, ``last``, ``version``, ``resend``."""
        data, out = self.session.take_output(), []
        while data:
            header = HEADER.unpack(data)
            length = header["messageLength"]
            assert header["protocolId"] == 0xDB
            assert length % 8 == 0, "gateway messages are padded to 8 bytes"
            assert length <= len(data)
            message = SCHEMA.by_id[header["messageTypeId"]]
            out.append(message.decode(data[HEADER.size:length]) | {
                "type": message.name, "seq": header["sequenceNumber"], "last": header["lastProcessedSeqNo"],
                "version": header["version"], "resend": bool(header["flags"] & IS_RESEND),
                "sent_ns": header["sendTimeNs"]})
            data = data[length:]
        return out

    def quote(self, *entries, quote_id=1, group=7, flags=0, smp=0):
        return self.send("MassQuoteRequest", {"quoteId": quote_id, "correlationId": quote_id, "mmpGroupId": group,
                                              "selfMatchPreventionId": smp, "flags": flags},
                         {"quotes": list(entries)})

    def order(self, order_id, side, price_e9, mantissa, *, exponent=0, instrument=BTC, tif=0, flags=0, smp=0, mode=0,
              **more):
        return self.send("NewOrderRequest", {
            "clientOrderId": order_id, "correlationId": order_id, "instrumentId": instrument, "price": price_e9,
            "quantity": {"mantissa": mantissa, "exponent": exponent}, "side": side, "timeInForce": tif,
            "flags": flags, "selfMatchPreventionId": smp, "selfTradingMode": mode} | more)


def entry(bid, ask, bid_qty=10, ask_qty=10, *, instrument=BTC, exponent=0, flags=0, bid_flags=None, ask_flags=None):
    """One entry of a mass quote; prices in whole units (or None), quantities as mantissas."""
    def e9(price):
        return None if price is None else round(price * E9)
    return {"instrumentId": instrument, "bidPrice": e9(bid), "askPrice": e9(ask),
            "bidQty": {"mantissa": bid_qty, "exponent": exponent},
            "askQty": {"mantissa": ask_qty, "exponent": exponent},
            "bidFlags": flags if bid_flags is None else bid_flags,
            "askFlags": flags if ask_flags is None else ask_flags}
