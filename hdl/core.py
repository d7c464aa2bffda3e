"""The core: feed port in, order port out, one host link. Vendor-neutral; boards add pads and clocks around it."""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, connect

from hdl.control.bank import RegisterBank
from hdl.control.ethernet_link import EthernetLink
from hdl.control.link import Link
from hdl.control.probe import LatencyProbe
from hdl.control.registers import BY_NAME, GATES, PARAM_BY_NAME
from hdl.control.telemetry import Telemetry
from hdl.gate.emission import Emission
from hdl.gate.holds import VOIDING
from hdl.layout import net, sbe
from hdl.mac.rx import MacRx
from hdl.mac.stream import RxBytes
from hdl.net.verify import VerifyFirst
from hdl.order.port import OrderPort
from hdl.path import ANSWER_LIMITS, COUNTED, WATCHED, TickPath

_EVENT = sbe.load("t2q_link").enums["EventCode"]


class Core(wiring.Component):
    """Tick-to-quote engine with GMII ports, one byte a cycle, all in clock domain ``sync`` (125 MHz).

    Parameters
    ----------
    instruments : number of instruments, 1 to 256.
    depth : book levels a side.
    link_mac : Ethernet address of the host link on the order port; ``None``: there is none.

    Members
    -------
    feed_rxd : in(8), feed_rx_dv, feed_rx_er : in(1) GMII receive pins of the feed port, lines A and B.
    order_rxd, order_rx_dv, order_rx_er, order_txd, order_tx_en, order_tx_er : GMII pins of the order port.
    kill_pin : in(1) level, synchronised in two cycles: no new quotes while high, and HALTED from then on.
    feed_lost : in(1) level, in this clock: the feed port's link or clock is gone. Every book is void
        from then on; while trading it halts.
    link_rx_data : in(8), link_rx_valid : in(1), link_rx_ready : out(1) bytes from the host, over a serial port.
    link_tx_data : out(8), link_tx_valid : out(1), link_tx_ready : in(1) bytes to the host, likewise.
    dbg_reg_we, dbg_reg_addr (16), dbg_reg_data (32) : out, every register write as it happens.
    dbg_host_tx_valid, dbg_host_tx_kind : out(1), a packet of the host becomes available to the transmit arbiter.
    dbg_link_tx_valid, dbg_link_tx_length (7) : out, likewise a frame of the host link, with its bytes.

    Latency, pin to pin: trigger byte in cycle *k*, first preamble byte of the quote in cycle *k* + 2, if the order port
    is idle. After reset everything blocks.
    """

    def __init__(self, instruments=16, depth=10, link_mac=net.MAC_HOST_LINK):
        self.instruments, self.depth, self.link_mac = instruments, depth, link_mac
        super().__init__({
            "feed_rxd": In(8), "feed_rx_dv": In(1), "feed_rx_er": In(1),
            "order_rxd": In(8), "order_rx_dv": In(1), "order_rx_er": In(1),
            "order_txd": Out(8), "order_tx_en": Out(1), "order_tx_er": Out(1),
            "kill_pin": In(1), "feed_lost": In(1),
            "link_rx_data": In(8), "link_rx_valid": In(1), "link_rx_ready": Out(1),
            "link_tx_data": Out(8), "link_tx_valid": Out(1), "link_tx_ready": In(1),
            "dbg_reg_we": Out(1), "dbg_reg_addr": Out(16), "dbg_reg_data": Out(32),
            "dbg_host_tx_valid": Out(1), "dbg_host_tx_kind": Out(1),
            "dbg_link_tx_valid": Out(1), "dbg_link_tx_length": Out(7),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.feed_mac = feed_mac = MacRx()
        m.submodules.verify = verify = VerifyFirst(WATCHED)
        m.submodules.path = path = TickPath(self.instruments, self.depth)
        m.submodules.order = order = OrderPort()
        m.submodules.emission = emission = Emission()
        m.submodules.bank = bank = RegisterBank(self.instruments)
        m.submodules.link = link = Link()
        m.submodules.telemetry = telemetry = Telemetry()
        m.submodules.probe = probe = LatencyProbe()

        cycle, time_ns = Signal(64), Signal(64)
        m.d.sync += cycle.eq(cycle + 1)
        # In two halves, as a carry through all of it takes most of a cycle: when the lower one wraps is known before.
        low, high, wraps = time_ns[:32], time_ns[32:], Signal()
        with m.If(bank.written.time_ns):
            m.d.sync += [time_ns.eq(bank.rw.time_ns), wraps.eq(bank.rw.time_ns[3:32].all())]
        with m.Else():
            m.d.sync += [low.eq(low + 8), high.eq(high + wraps), wraps.eq(low[4:].all() & ~low[3])]

        session_enabled = Signal()      # with `bank.write.session_enable`, of a 1: it has a long way to go
        m.d.sync += session_enabled.eq(
            bank.bus.we & (bank.bus.addr == BY_NAME["session_enable"].address) & bank.bus.data[0])

        # ------------------------------------------------------------------ the way of a packet
        m.d.comb += [feed_mac.rxd.eq(self.feed_rxd), feed_mac.rx_dv.eq(self.feed_rx_dv),
                     feed_mac.rx_er.eq(self.feed_rx_er), verify.hold.eq(bank.rw.feed_mode)]
        connect(m, feed_mac.out, verify.rx)
        connect(m, feed_mac.ahead, verify.ahead)
        connect(m, verify.out, path.rx)
        connect(m, path.quote, order.quote)
        connect(m, order.answers, path.answers)
        m.d.comb += [
            path.cycle.eq(cycle), path.rx_next.eq(verify.next_data), path.rx_next_valid.eq(verify.next_valid),
            path.rx_next_is.eq(verify.next_is),
            order.time_ns.eq(time_ns),
            order.fire.eq(path.fire), order.kind.eq(path.kind), order.hot_busy.eq(path.hot_busy),
            order.hot_wants.eq(path.hot_wants),
            path.quote_id.eq(order.quote_id), path.answers_wait.eq(order.answers_wait),
            path.ready.eq(order.ready), path.session_up.eq(order.status.session_up),
            path.session_lost.eq(order.session_lost),
            path.session_enabled.eq(session_enabled),
            order.rxd.eq(self.order_rxd), order.rx_dv.eq(self.order_rx_dv), order.rx_er.eq(self.order_rx_er),
            self.order_txd.eq(order.txd), self.order_tx_en.eq(order.tx_en), self.order_tx_er.eq(order.tx_er),
            probe.fire.eq(path.direct_quote), probe.tx_en.eq(order.tx_en),
            emission.approved.eq(path.approved), emission.started.eq(order.quote_started),
            emission.again.eq(order.resent), emission.txd.eq(order.txd),
            emission.tx_en.eq(order.tx_en),
        ]

        # ------------------------------------------------------------------ control
        control, config = path.control, order.config
        kill_pin = Signal()     # the pin knows no clock
        m.submodules.kill_pin = FFSynchronizer(self.kill_pin, kill_pin)
        connect(m, link.bus, bank.bus)
        m.d.comb += [
            *(getattr(control, name).eq(getattr(bank.rw, name)) for name in (
                "line_a_ip", "line_a_port", "line_b_ip", "line_b_port", "vlan", "deadman_cycles", "session_interval",
                "session_burst", "symbol_interval", "symbol_burst", "pos_value", "pos_settled_bid", "pos_settled_ask",
                "pos_quote_id", "pos_next", "quote_id", "ref_value", "ref_local", "ref_basis", "ref_lot_value",
                "ref_cycles", "live_most", "duplicate_most", "duplicate_cycles", "equity", "equity_start", "loss_most",
                "drawdown_most", "drift_cycles", "life_cycles", "gross_most", "leverage_most", "open_most",
                "equity_cycles", "init_peer_seq", *ANSWER_LIMITS)),
            *(getattr(control, name).eq(getattr(bank.write, name)) for name in (
                "arm", "disarm", "reduce", "kill", "clear_halt", "heartbeat", "pos_commit", "ref_commit", "release")),
            *(getattr(control, name).eq(getattr(bank, name)) for name in (
                "commit", "commit_refused", "limits_ok", "hash_ok")),
            control.drift_cycles_written.eq(bank.write.drift_cycles),
            control.ref_cycles_written.eq(bank.write.ref_cycles), control.equity_written.eq(bank.written.equity),
            control.equity_start_written.eq(bank.written.equity_start),
            control.equity_cycles_written.eq(bank.write.equity_cycles),
            control.limit_written.eq(Cat(getattr(bank.write, name) for name in VOIDING).any()),
            control.load_written.eq(Cat(getattr(bank.write, name) for name in (
                "equity", "gross_most", "leverage_most", "open_most")).any()),
            control.mismatch.eq(emission.mismatch),
            control.session_interval_written.eq(bank.write.session_interval),
            control.symbol_interval_written.eq(bank.write.symbol_interval),
            control.quote_id_written.eq(bank.written.quote_id), control.kill_pin.eq(kill_pin),
            control.feed_lost.eq(self.feed_lost),
            control.data.eq(bank.bus.data),
            control.security_id_written.eq(bank.security_write), control.security_index.eq(bank.security_index),
            control.stale_limit_written.eq(bank.param_written[PARAM_BY_NAME["stale_cycles"].word]),
            control.drift_band_written.eq(bank.param_written[PARAM_BY_NAME["drift_band"].word]),
            control.written_row.eq(bank.param_write_row),
            bank.flip.eq(path.flip), path.bank.eq(bank.bank), bank.row_addr.eq(path.row_address),
            bank.row_choose.eq(path.row_choose), path.row.eq(bank.row), bank.look_index.eq(path.look_index),
            bank.look_word.eq(path.look_word), path.look_data.eq(bank.look_data),
            config.session_enable.eq(bank.write.session_enable), config.session_enable_value.eq(bank.bus.data[0]),
            config.write.eq(bank.word_write), config.address.eq(bank.word_address), config.data.eq(bank.bus.data),
            config.last_processed.eq(bank.rw.last_processed),
            bank.now.time_ns.eq(time_ns), bank.now.quote_id.eq(path.status.next_quote_id),
            bank.histogram_data.eq(probe.histogram_data), probe.histogram_addr.eq(bank.histogram_addr),
        ]

        # ------------------------------------------------------------------ the host link's bytes
        serial = {name: getattr(self, f"link_{name}") for name in (
            "rx_data", "rx_valid", "rx_ready", "tx_data", "tx_valid", "tx_ready")}
        if self.link_mac is None:
            m.d.comb += [
                *(getattr(link, name).eq(serial[name]) for name in ("rx_data", "rx_valid", "tx_ready")),
                *(serial[name].eq(getattr(link, name)) for name in ("rx_ready", "tx_data", "tx_valid")),
            ]
        else:
            m.submodules.ethernet_link = ethernet = EthernetLink(mac=self.link_mac)
            # What the host says may come a cycle later, so that the order port's receiver ends in registers here.
            m.d.sync += [getattr(ethernet.rx, name).eq(getattr(order.link_rx, name)) for name in RxBytes.members]
            connect(m, ethernet.tx, order.link_tx)
            was_available = Signal()
            m.d.sync += was_available.eq(ethernet.tx.available)
            m.d.comb += [
                *(getattr(ethernet, f"serial_{name}").eq(serial[name]) for name in ("rx_data", "rx_valid", "tx_ready")),
                *(serial[name].eq(getattr(ethernet, f"serial_{name}")) for name in ("rx_ready", "tx_data", "tx_valid")),
                *(getattr(link, name).eq(getattr(ethernet, f"link_{name}")) for name in (
                    "rx_data", "rx_valid", "rx_restart", "tx_ready")),
                *(getattr(ethernet, f"link_{name}").eq(getattr(link, name)) for name in (
                    "rx_ready", "rx_packets", "tx_data", "tx_valid")),
                self.dbg_link_tx_valid.eq(ethernet.tx.available & ~was_available),
                self.dbg_link_tx_length.eq(ethernet.tx.length),
            ]

        # ------------------------------------------------------------------ what the registers show
        shown = {
            "cycle": cycle, **{name: getattr(path.status, name) for name in (
                "state", "halt_cause", "halt_nonce", "gap_packets", "expected_seq", "session_tokens", "live_bids",
                "live_asks", "gross", "open_bids", "open_asks")},
            **{name: getattr(order.status, name) for name in (
                "session_up", "snd_nxt", "snd_una", "rcv_nxt", "app_seq", "rto", "srtt")},
            "latency_min": probe.minimum, "latency_max": probe.maximum, "latency_count": probe.count,
            "latency_sum": probe.sum, "epoch": link.epoch,
        }
        m.d.comb += [getattr(bank.ro, name).eq(value) for name, value in shown.items()]
        assert set(shown) == set(bank.ro.signature.members), set(shown) ^ set(bank.ro.signature.members)
        bad = feed_mac.preamble_errors | feed_mac.rx_errors | feed_mac.runts | feed_mac.oversize | feed_mac.bad_fcs
        counted = {
            "feed_frames": feed_mac.frames | bad, "feed_bad_fcs": bad,
            **{name: getattr(path.counters, name) for name in COUNTED},
            **{f"drop_{name.lower()}": path.drops[gate] for gate, (name, _, _) in GATES.items()},
            **{name: getattr(order.counters, name) for name in order.counters.signature.members},
        }
        own = {"telemetry_overflow": telemetry.lost | link.session_sent_lost, "link_rx_errors": link.rx_errors,
               "link_rx_packets": link.rx_packets, "write_fenced": link.fenced}
        m.d.comb += [getattr(bank.count, name).eq(strobe) for name, strobe in counted.items()]
        m.d.sync += [getattr(bank.count, name).eq(strobe) for name, strobe in own.items()]
        counted |= own
        assert set(counted) == set(bank.count.signature.members), set(counted) ^ set(bank.count.signature.members)

        # ------------------------------------------------------------------ the host link
        connect(m, link.host_tx, order.host_tx)
        connect(m, order.host_rx, link.host_rx)
        connect(m, telemetry.o, link.telemetry)
        record = path.record
        m.d.comb += [
            order.host_tx_kind.eq(link.host_tx_kind), link.host_rx_kind.eq(order.host_rx_kind),
            link.host_rx_length.eq(order.host_rx_length),
            link.telemetry_type.eq(telemetry.o_type), link.telemetry_length.eq(telemetry.o_length),
            link.session_sent.eq(order.session_sent), link.session_sent_seq.eq(order.session_sent_seq),
            telemetry.cycle.eq(cycle), telemetry.decision_valid.eq(path.record_valid),
            *(getattr(telemetry.decision, name).eq(getattr(record, name)) for name in record.signature.members),
            telemetry.mass_cancel.strobe.eq(path.mass_cancel), telemetry.mass_cancel.data.eq(path.last_seq),
            telemetry.mass_cancel_state.eq(path.status.state), telemetry.quote_id.eq(order.quote_id),
        ]
        events = {
            "state_changed": (path.state_changed, Cat(path.status.state, Const(0, 6), path.status.halt_cause)),
            "gap": (path.gap, path.gap_size), "poisoned": (path.poisoned, path.last_seq),
            "session_lost": (order.session_lost, order.session_gave_up),
            "session_tx_refused": (order.session_tx_refused, 0),
            "channel_reset": (path.channel_reset, path.last_seq), "arm_refused": (path.arm_refused, path.status.state),
            "commit_refused": (bank.commit_refused, bank.commit_hash),
        }
        assert {name.upper() for name in events} | {"TELEMETRY_OVERFLOW"} == set(_EVENT)
        for name, (strobe, value) in events.items():
            source = getattr(telemetry.events, name)
            m.d.comb += [source.strobe.eq(strobe), source.data.eq(value)]

        m.d.comb += [
            self.dbg_reg_we.eq(bank.bus.we), self.dbg_reg_addr.eq(bank.bus.addr), self.dbg_reg_data.eq(bank.bus.data),
            self.dbg_host_tx_valid.eq(order.dbg_host_tx_valid), self.dbg_host_tx_kind.eq(order.dbg_host_tx_kind),
        ]
        return m
