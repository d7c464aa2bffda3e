"""The register map, described once.

From this description come the gateware bank, the typed host proxy, the JSON map with its content hash and the
documentation page. Addresses are 16-bit word addresses, words are 32 bits.

======================  ===========================================================================================
address                 what
======================  ===========================================================================================
``0x0000``..``0x007F``  global registers but counters, in the order of :data:`REGISTERS`
``0x0080``..``0x00FF``  counters, likewise
``0x1000``..``0x10FF``  :data:`SECURITY_ID` of instrument *n* at ``0x1000 + n`` (writable while DISARMED only)
``0x2000``..``0x203F``  latency histogram, one bin per cycle
``0x8000``..``0xBFFF``  parameter rows, SHADOW bank: word *w* of instrument *n* at ``0x8000 + 64 n + w``
======================  ===========================================================================================

Every limit resets to zero, and zero blocks. What the host writes to a limit, or to a parameter row, is staged: it has
an effect when ``commit`` puts all of it in force.
"""

import hashlib
import json
from dataclasses import dataclass

#: Written to ``ARM``; anything else is ignored, so that a stray write cannot arm.
ARM_MAGIC = 0x41524D21
HISTOGRAM_BINS = 64
#: Width of a latency in cycles, as it is measured.
LATENCY_BITS = 16
RESEND_TICK = 128   #: cycles: what times of the TCP session are counted in
ROW_WORDS = 64
#: Bits of the number of a word in its row.
ROW_WORD_BITS = (ROW_WORDS - 1).bit_length()
#: Bits of a price in ticks, signed: 8,388,607 ticks are 4,194,303.50 at a tick of 0.50. Bits of a quantity in lots.
TICK_BITS, LOT_BITS = 24, 24
#: Prices in ticks lie below this, and not below its negative.
TICK_LIMIT = 1 << TICK_BITS - 1
#: What a Decision record of a mass cancel says instead of an instrument; its outcome tells it from instrument 255.
MASS_CANCEL_INSTRUMENT = 0xFF
GLOBAL_BASE, COUNTER_BASE, SECURITY_ID_BASE, HISTOGRAM_BASE, PARAM_BASE = 0x0000, 0x0080, 0x1000, 0x2000, 0x8000
#: A quote's id has the number of its instrument in so many low bits.
INSTRUMENT_BITS = 8
#: Fraction bits of a band around a reference: a band of 1 % is ``floor(0.01 * 2^16)``.
BAND_BITS = 16
#: Fraction bits of the unit of money in what a lot is worth, and of the leverage.
MONEY_FRACTION_BITS, LEVERAGE_BITS = 8, 4

#: Values of ``STATE``.
DISARMED, ACTIVE, REDUCING, HALTED = range(4)
STATES = ("DISARMED", "ACTIVE", "REDUCING", "HALTED")

#: Bits of ``HALT_CAUSE``.
HALT_CAUSES = {"kill_register": 0, "kill_pin": 1, "deadman": 2, "session_lost": 3, "feed_lost": 4, "emission": 5,
               "loss": 6, "answers": 7, "integrity": 8}

#: Gates by bit of the reason bitmap (the gates' customary names, G0 to G22), with what each one says when it blocks.
GATES = {
    0: ("G0", "state", "not armed, or the side does not reduce the position while REDUCING"),
    1: ("G1", "dead-man", "no host heartbeat within deadman_cycles, or no limit set"),
    2: ("G2", "integrity", "no limits are in force: none was committed with a right CRC"),
    3: ("G3", "permission", "instrument or side not enabled"),
    4: ("G4", "data", "book unknown, crossed, in mid-event or stale, or no stale limit set"),
    5: ("G5", "sanity", "price or quantity outside its hard band, zero or unrepresentable"),
    6: ("G6", "collar", "price outside the band around the reference, or no reference, or it is too old"),
    7: ("G7", "post only", "price would reach the other side of the book: it would take"),
    8: ("G8", "self trade", "both sides of what would leave meet: it leaves as nothing on either side"),
    9: ("G9", "max quantity", "quantity above max_lots"),
    10: ("G10", "max notional", "price times quantity above max_notional, or the price bound does not ensure it"),
    11: ("G11", "position", "position, open and in-flight quantity would pass max_long or max_short, or unknown"),
    12: ("G12", "equity", "equity was not told for equity_cycles, or has no limits, or all positions and open quotes "
                          "would be worth more than gross_most, or than leverage_most allows, or a lot's value is not "
                          "known; and the side does not reduce the position"),
    13: ("G13", "open load", "more sides would be live than live_most, or one side's open quotes would be worth more "
                             "than open_most, or a lot's value is not known"),
    14: ("G14", "rate", "session or instrument token bucket empty"),
    15: ("G15", "duplicate", "the instrument said the same too often: held until the host releases it"),
    16: ("G16", "quote life", "a side stands for life_cycles before it moves towards the market: held, not blocked"),
    17: ("G17", "fill burst", "too much traded within fills_cycles: held for freeze_cycles, or until the host releases "
                              "it"),
    18: ("G18", "repeats", "the side traded and was quoted again too often: held until the host releases it"),
    20: ("G20", "refusals", "the exchange refused too much within refusals_cycles: held until the host releases it"),
    22: ("G22", "kill", "kill latch set"),
    24: ("S0", "session", "order session not established"),
    25: ("G6b", "drift", "the reference is too far from what it was within drift_cycles, or has no limits, and the "
                         "side does not reduce the position"),
    26: ("G6c", "basis", "the feed's mid is too far from the quoted venue's price and the basis"),
}
GATE_COUNTERS = tuple(GATES)


@dataclass(frozen=True)
class Register:
    """One register.

    Attributes
    ----------
    name : lower-case name; 64-bit registers end in ``_lo`` and ``_hi`` (write lo first: hi takes effect for both).
    access : ``"rw"`` (value held), ``"ro"`` (value supplied by the core), ``"wo"`` (strobe: a write is an action,
        reads as zero), ``"count"`` (saturating event counter, read only).
    limit : it is a limit of the whole card: ``"rw"``, but what is written has an effect with ``commit`` only, and its
        CRC covers it. The description below says ``"limit"`` for the access.
    doc : what it does, with units.
    width : bits that are held or supplied, at most 32.
    init : reset value.
    section : heading in the documentation.
    """

    name: str
    access: str
    doc: str
    width: int = 32
    init: int = 0
    section: str = ""
    address: int = 0
    limit: bool = False


def _build():
    registers = []

    free = {"count": COUNTER_BASE}

    def place(access):
        space = "count" if access == "count" else ""
        free[space] = free.get(space, GLOBAL_BASE) + 1
        return free[space] - 1

    def section(name, *rows):
        for row in rows:
            reg_name, access, doc, *rest = row
            width = rest[0] if rest else 32
            if width == 64:
                for half in ("lo", "hi"):
                    registers.append(Register(f"{reg_name}_{half}", access, f"{doc} ({half} 32 bits)", 32, 0, name,
                                              place(access)))
            else:
                limit = access == "limit"
                registers.append(Register(reg_name, "rw" if limit else access, doc, width, 0, name, place(access),
                                          limit))

    section("identity",
            ("map_hash", "ro", "First 32 bits of the content hash of this map; the daemon refuses another one"),
            ("instruments", "ro", "Number of instruments of this build"),
            ("cycle", "ro", "Cycles since reset (reading lo latches hi)", 64),
            ("scratch", "rw", "No effect: for link tests"))
    section("state",
            ("arm", "wo", "Write ARM_MAGIC: DISARMED -> ACTIVE; refused unless the session is up and limits_crc says "
                          "what is in force"),
            ("disarm", "wo", "ACTIVE or REDUCING -> DISARMED; everything live is cancelled"),
            ("reduce", "wo", "ACTIVE -> REDUCING"),
            ("kill", "wo", "-> HALTED; everything live is cancelled"),
            ("clear_halt", "wo", "Write the value of halt_nonce: HALTED -> DISARMED, if limits_crc says what is in "
                                 "force; positions must be written anew"),
            ("state", "ro", "0 DISARMED, 1 ACTIVE, 2 REDUCING, 3 HALTED", 2),
            ("halt_cause", "ro",
             "Causes of the halt: 0 kill register, 1 kill pin, 2 dead-man, 3 session lost, 4 feed lost, 5 emission "
             "(G21), 6 loss (G19), 7 answers that cannot be, 8 integrity (G2)", 9),
            ("halt_nonce", "ro", "Number of the halt; clear_halt must repeat it", 32),
            ("heartbeat", "rw", "Host dead-man: counts only if the value written differs by +1 from the last one"),
            ("deadman_cycles", "limit", "G1 limit in cycles; 0 blocks"),
            ("time_ns", "rw", "Wall time in ns since the epoch for sendTimeNs; advances by 8 a cycle; hi sets both",
             64),
            ("limits_crc", "rw", "CRC that the next commit, arm or clear_halt goes by; said for one of them only: "
                                 "CRC-32 (IEEE 802.3) over map_hash, then all limits of the card by address, then all "
                                 "parameter rows, as little endian words cut to their bits"),
            ("commit", "wo", "Put all that is staged in force, limits and rows, in one cycle, if its CRC is "
                             "limits_crc; every instrument is evaluated anew. Until then, or until it is refused, "
                             "writes of limits, rows, limits_crc and commit are. Refused while trading: HALTED (G2)"),
            ("limits_hash", "ro", "CRC of the limits in force; it changes with them"),
            ("limits_valid", "ro", "1: there are limits in force, 0: nothing can be armed (G2)", 1),
            ("commits_refused", "count", "Commits whose CRC was not limits_crc: nothing has changed"),
            ("bank", "ro", "Active parameter bank", 1))
    section("feed",
            ("line_a_ip", "rw", "Multicast group of line A, big endian number; 0 = line off"),
            ("line_a_port", "rw", "UDP port of line A", 16),
            ("line_b_ip", "rw", "Multicast group of line B; 0 = line off"),
            ("line_b_port", "rw", "UDP port of line B", 16),
            ("vlan", "rw", "0: untagged only; bit 16: any tag or none; bit 17: tag with VLAN id in bits 11..0", 18),
            ("feed_mode", "rw", "Bit 0: verify, then quote (decisions wait for the FCS); 0 = cut through", 1),
            ("feed_frames", "count", "Frames on the feed port"),
            ("feed_bad_fcs", "count", "Frames with wrong FCS or rx_er, cut short, or too long"),
            ("feed_not_ours", "count", "Frames of another MAC, EtherType, VLAN, protocol, group or port"),
            ("feed_bad_header", "count", "IPv4 header with wrong checksum, version or length; UDP length inconsistent"),
            ("feed_ip_options", "count", "IPv4 headers with options"),
            ("feed_fragments", "count", "IPv4 fragments"),
            ("line_a_packets", "count", "Packets of line A"),
            ("line_b_packets", "count", "Packets of line B"),
            ("accepted_packets", "count", "Packets that advanced the sequence"),
            ("duplicate_packets", "count", "Packets already seen on the other line"),
            ("gaps", "count", "Sequence gaps"),
            ("gap_packets", "ro", "Packets missing in all gaps"),
            ("poisoned_packets", "count", "Accepted packets that proved bad at their end: books were voided"),
            ("short_packets", "count", "Packets too short for a packet header"),
            ("messages", "count", "Messages walked"),
            ("book_messages", "count", "Book messages walked (templates 32 and 46)"),
            ("entries", "count", "Book entries applied"),
            ("foreign_entries", "count", "Book entries of instruments that are not configured"),
            ("ignored_entries", "count", "Entries of other types or actions, or at a level outside 1..10"),
            ("px_errors", "count",
             "Entries whose price is no multiple of the tick, or out of range, or whose size is not > 0"),
            ("channel_resets", "count", "ChannelReset messages"),
            ("events", "count", "Ends of event"),
            ("expected_seq", "ro", "Next sequence number"))
    section("quoting",
            ("session_interval", "limit", "G14: cycles per token of the session bucket; 0 = never refilled"),
            ("session_burst", "limit", "G14: size of the session bucket; a quarter is kept for cancels", 16),
            ("symbol_interval", "limit", "G14: cycles per token of every instrument's bucket; 0 = never refilled"),
            ("symbol_burst", "limit", "G14: size of every instrument's bucket; a new size empties them", 8),
            ("session_tokens", "ro", "Tokens in the session bucket", 16),
            ("quote_id", "rw", "Id of the next quote (hi sets both); bits 7..0 will be its instrument, 255 of a mass "
                               "cancel", 64),
            ("pos_value", "rw", "Position in lots, signed; used by pos_commit"),
            ("pos_settled_bid", "rw", "Settled bid lots; open_bid = sent_bid_total - settled (mod 2^32)"),
            ("pos_settled_ask", "rw", "Settled ask lots"),
            ("pos_quote_id", "rw", "Low 32 bits of the quote id that a clear refers to"),
            ("pos_next", "rw", "Low 32 bits of the sequenceNumber of the exchange's first message that these words do "
                               "not know: they count if the fabric has learned of none that is later"),
            ("pos_commit", "wo", "Bits 7..0 instrument, 8 clear bid, 9 clear ask: applies the five words at once, in "
                                 "the next gap between book entries; a second write before that replaces the first. A "
                                 "side is cleared whether they count or not"),
            ("ref_value", "rw", "G6: independent reference in quote ticks; used by ref_commit", TICK_BITS - 1),
            ("ref_local", "rw", "G6c: price at the quoted venue in quote ticks; likewise", TICK_BITS - 1),
            ("ref_basis", "rw", "G6c: what the feed is above the quoted venue, in quote ticks, signed; likewise",
             TICK_BITS),
            ("ref_lot_value", "rw", "G12, G13: what a lot is worth at its mark, in 1/256 of the host's unit of money, "
                                    "rounded up; likewise; 0 blocks"),
            ("ref_commit", "wo", "Bits 7..0 instrument: the four words are its references from now on"),
            ("ref_cycles", "limit", "G6, G6c, G12, G13: greatest age of references in cycles; 0 blocks. They expire "
                                    "when they are between half as old and so old"),
            ("drift_cycles", "limit", "G6b: the window over which a reference must not drift, in cycles; 0 blocks"),
            ("life_cycles", "limit", "G16: how long a side stands before it may move towards the market, in cycles; 0: "
                                     "no time"),
            ("live_most", "limit", "G13: greatest number of live sides of all instruments; 0 blocks", 10),
            ("duplicate_most", "limit", "G15: so many equal quotes of an instrument among the last 8 of all, each sent "
                                     "less than duplicate_cycles before the last one; 0 blocks", 4),
            ("duplicate_cycles", "limit", "G15: what is older than so many cycles counts no more; 0 blocks"),
            ("equity", "rw", "What the account is worth, signed, in the host's unit of money; told with every write"),
            ("equity_start", "rw", "G19: equity from which losses count, signed; the greatest so far is that again"),
            ("loss_most", "limit",
             "G19: greatest loss since equity_start; more halts, three fifths reduce; 0 blocks (G12)", 31),
            ("drawdown_most", "limit", "G19: greatest distance from the greatest equity, likewise; 0 blocks (G12)", 31),
            ("equity_cycles", "limit", "G12: greatest age of equity in cycles, as ref_cycles; 0 blocks"),
            ("gross_most", "limit", "G12: most that all positions and open quotes may be worth together, in the host's "
                                    "unit of money; 0 blocks"),
            ("leverage_most", "limit", "G12: ... in sixteenths of equity; 0 blocks", 8),
            ("open_most", "limit", "G13: most that the open quotes of one side of all instruments may be worth, in the "
                                   "host's unit of money; 0 blocks"),
            ("fills_cycles", "limit", "G17: the rolling window, in cycles; 0 blocks"),
            ("fills_lots", "limit", "G17: greatest sum of lots that trade on one instrument within it; 0 blocks", 24),
            ("fills_delta", "limit", "G17: greatest difference of lots bought and lots sold, likewise; 0 blocks", 24),
            ("fills_most", "limit", "G17: greatest number of fills, likewise; 0 blocks", 8),
            ("freeze_cycles", "limit", "G17: a hold ends after so many cycles; 0: the host has to release it"),
            ("repeats_most", "limit", "G18: how often a side may trade and be quoted again before the host releases "
                                      "the instrument; 0 blocks", 8),
            ("refusals_cycles", "limit", "G20: the rolling window, in cycles; 0 blocks"),
            ("refusals_most", "limit", "G20: greatest number of sides of an instrument refused within it; 0 blocks", 8),
            ("release", "wo", "Bits 7..0 instrument: it is not held any more (G15, and with its next visit G17, G18, "
                              "G20), and its repeats begin anew"),
            ("quotes_sent", "count", "Frames with at least one new or changed side"),
            ("quotes_pulled", "count", "Frames that only take sides away"),
            ("mass_cancels", "count", "MassQuoteCancel frames"),
            ("decisions_held", "count", "Direct evaluations that changed nothing"),
            ("decisions_dropped", "count", "Direct evaluations blocked by gates with nothing left to do"),
            ("decisions_deferred", "count", "Evaluations that had to wait for the order port"),
            ("decisions_differed", "count", "Frames whose content was not what had been decided: always 0"),
            ("positions_late", "count", "Positions that the host wrote and that did not count: the fabric had learned "
                                        "more"),
            ("live_bids", "ro", "Instruments 0..31 with a live bid"),
            ("live_asks", "ro", "Instruments 0..31 with a live ask"),
            ("gross", "ro", "What all positions and open quotes are worth, in the host's unit of money, rounded down; "
                            "all ones: that or more, or a lot's value is not known"),
            ("open_bids", "ro", "What the open bids of all instruments are worth, likewise"),
            ("open_asks", "ro", "What the open asks of all instruments are worth, likewise"),
            ("telemetry_overflow", "count", "Records lost because the host did not read"))
    section("gate", *((f"drop_{GATES[g][0].lower()}", "count", f"{GATES[g][0]} {GATES[g][1]}: {GATES[g][2]}")
                      for g in GATE_COUNTERS))
    section("session",
            ("session_enable", "wo", "1: the fabric takes the connection over, and begins 4 us later, with the values "
                                     "below as they stand now: what is written later counts from the next time on; "
                                     "0: gives it back"),
            ("session_up", "ro", "1 while the fabric owns an established connection", 1),
            ("local_mac", "rw", "Own Ethernet address; while the session is down, frames to it are received 4 us after "
                                "it was written (lo: low 32 bits, hi: high 16)", 64),
            ("peer_mac", "rw", "Next hop's Ethernet address", 64),
            ("local_ip", "rw", "Own IPv4 address, big endian number"),
            ("peer_ip", "rw", "Gateway's IPv4 address"),
            ("local_port", "rw", "Own TCP port", 16),
            ("peer_port", "rw", "Gateway's TCP port", 16),
            ("init_snd_nxt", "rw", "First TCP sequence number that the fabric sends"),
            ("init_rcv_nxt", "rw", "Next TCP sequence number expected from the peer"),
            ("init_peer_window", "rw", "Peer's receive window in bytes at hand-over", 16),
            ("window", "rw", "Receive window that the fabric announces", 16),
            ("rto_first", "rw", "Retransmission time-out before a round trip was measured, in ticks of 128 cycles", 26),
            ("rto_min", "rw", "Least retransmission time-out, likewise", 26),
            ("rto_max", "rw", "Greatest one, doublings included, likewise", 26),
            ("rto_most", "rw", "So many time-outs in a row; one more ends the session", 5),
            ("ack_delay", "rw", "How long the acknowledgement of every other segment may wait, likewise; 0: not", 16),
            ("init_app_seq", "rw", "First session sequence number that the fabric uses", 64),
            ("init_peer_seq", "rw", "sequenceNumber of the exchange's next message; counts at the hand-over", 64),
            ("last_processed", "rw", "lastProcessedSeqNo for outgoing headers, at any time (hi sets both)", 64),
            ("mmp_group", "rw", "mmpGroupId", 64),
            ("smp_id", "rw", "selfMatchPreventionId", 64),
            ("quote_flags", "rw", "MassQuoteFlags", 8),
            ("order_flags", "rw", "OrderFlags of both sides", 16),
            ("snd_nxt", "ro", "Next TCP sequence number to be sent"),
            ("snd_una", "ro", "Oldest unacknowledged TCP sequence number"),
            ("rcv_nxt", "ro", "Next TCP sequence number expected"),
            ("app_seq", "ro", "Next session sequence number", 64),
            ("rto", "ro", "Retransmission time-out in force, without doublings, in ticks of 128 cycles", 26),
            ("srtt", "ro", "Smoothed round trip, in ticks of 128 cycles", 26),
            ("order_rx_frames", "count", "Frames on the order port"),
            ("order_rx_bad", "count", "Frames with wrong FCS or checksum"),
            ("order_rx_dropped", "count", "Frames dropped for want of room"),
            ("order_rx_slow", "count", "Frames given to the host"),
            ("segments_in_order", "count", "Session segments accepted"),
            ("segments_duplicate", "count", "Session segments already received"),
            ("segments_out_of_order", "count", "Session segments beyond the next expected byte"),
            ("segments_refused", "count", "Session segments with SYN, without ACK, or with RST and another number than "
                                          "the next expected: ignored but for a challenge acknowledgement"),
            ("acks_sent", "count", "Pure acknowledgements, and probes of a window without room for a quote"),
            ("segments_resent", "count", "Segments sent again"),
            ("order_tx_frames", "count", "Frames sent"))
    section("link",
            ("link_rx_errors", "count", "Host packets dropped: CRC, length or type"),
            ("link_rx_packets", "count", "Host packets accepted"),
            ("epoch", "ro", "Greatest epoch of a writer since reset: writes of a lower one are refused, but kill"),
            ("write_fenced", "count", "Packets refused for their epoch"),
            ("write_refused", "count", "Writes to addresses that do not exist or are locked"))
    section("latency",
            ("latency_min", "ro", "Least trigger-to-quote in cycles (all ones: none yet)", LATENCY_BITS),
            ("latency_max", "ro", "Greatest trigger-to-quote in cycles (all ones: so many or more)", LATENCY_BITS),
            ("latency_count", "ro", "Direct quotes measured"),
            ("latency_sum", "ro", "Sum of trigger-to-quote in cycles", 64))
    return tuple(registers)


REGISTERS = _build()
BY_NAME = {r.name: r for r in REGISTERS}
#: Limits of the whole card, by address.
LIMITS = tuple(r for r in REGISTERS if r.limit)


@dataclass(frozen=True)
class Param:
    """One word of an instrument's parameter row: ``name``, ``word`` (0..63), ``width`` used, ``signed``, ``doc``."""

    name: str
    word: int
    width: int
    signed: bool
    doc: str


def _params():
    rows = (
        ("sym_en", 1, False, "G3: instrument enabled"),
        ("bid_en", 1, False, "G3: bids enabled"),
        ("ask_en", 1, False, "G3: asks enabled"),
        ("feed_tick_shift", 4, False, "s of feed tick mantissa = odd * 2^s"),
        ("feed_tick_odd", 32, False, "odd of feed tick mantissa = odd * 2^s"),
        ("feed_tick_inv", TICK_BITS, False,
         f"inverse of odd modulo 2^{TICK_BITS}: ticks = (mantissa >> s) * inv mod 2^{TICK_BITS} where exact"),
        ("ref_scale", 32, False, "round(feed tick / quote tick * 256 / 2 * 2^16): (bid + ask) ticks -> reference in "
                                 "1/256 quote ticks, after >> 16"),
        ("half_spread_sub", 24, False, "Half spread in 1/256 quote ticks; 0 blocks (G5)"),
        ("skew_q8", 24, False, "Price skew in 1/256 quote ticks per lot of position, times 256"),
        ("skew_max_sub", 31, False, "Clamp of the skew in 1/256 quote ticks"),
        ("target_lots", 32, True, "Target position in lots"),
        ("quote_lots", LOT_BITS, False, "Quantity of each side in lots; 0 blocks (G5)"),
        ("toward_ticks", TICK_BITS - 1, False,
         "Least move towards the market that replaces a live side, in quote ticks"),
        ("away_ticks", TICK_BITS - 1, False,
         "Least move away from the market that replaces a live side, in quote ticks"),
        ("px_min_ticks", TICK_BITS, True, "G5: least price in quote ticks"),
        ("px_max_ticks", TICK_BITS, True, "G5: greatest price in quote ticks"),
        ("q_min_lots", LOT_BITS, False, "G5: least quantity"),
        ("q_hard_lots", LOT_BITS, False, "G5: greatest quantity"),
        ("max_lots", LOT_BITS, False, "G9: greatest quantity per order"),
        ("max_notional_lo", 32, False, "G10: greatest price times quantity, in tick-lots, low word"),
        ("max_notional_hi", 16, False, "G10: high word"),
        ("max_long_lots", 31, False, "G11: greatest long position including open and in-flight bids"),
        ("max_short_lots", 31, False, "G11: greatest short position including open and in-flight asks"),
        ("stale_cycles", 32, False, "G4: greatest age of the feed in cycles; 0 blocks"),
        ("lot_mult", 32, False, "Quantity mantissa per lot"),
        ("lot_exp", 8, True, "Exponent of the quantity mantissa"),
        ("tick_e9_lo", 32, False, "Quote tick as a price mantissa with exponent -9, low word"),
        ("tick_e9_hi", 8, False, "Quote tick as a price mantissa, bits 39..32"),
        ("instrument_id_lo", 32, False, "Quoted instrument's id at the venue, low word"),
        ("instrument_id_hi", 32, False, "Quoted instrument's id at the venue, high word"),
        ("px_notional_ticks", TICK_BITS - 1, False,
         "G10: greatest absolute price in quote ticks; times quote_lots it must not exceed max_notional; 0 blocks"),
        ("bands", 32, False,
         "Greatest distances in 1/65536: bits 15..0 G6 of a price from its reference, 31..16 G6c of the feed's mid "
         "from the local price and the basis"),
        ("drift_band", BAND_BITS, False, "G6b: greatest distance in 1/65536 of a reference from any other within "
                                         "drift_cycles; 0 blocks"),
    )
    return tuple(Param(name, word, width, signed, doc) for word, (name, width, signed, doc) in enumerate(rows))


PARAMS = _params()
PARAM_BY_NAME = {p.name: p for p in PARAMS}
assert len(PARAMS) <= ROW_WORDS


def param_address(instrument, name):
    """Word address of one parameter of one instrument in the shadow bank."""
    return PARAM_BASE + instrument * ROW_WORDS + PARAM_BY_NAME[name].word


def security_id_address(instrument):
    """Word address of the feed's SecurityID (int32; 0 = unused) of one instrument."""
    return SECURITY_ID_BASE + instrument


def as_dict():
    """The whole map as plain data, without its hash."""
    return {
        "registers": [{"name": r.name, "address": r.address, "access": r.access, "width": r.width, "init": r.init,
                       "section": r.section, "limit": r.limit, "doc": r.doc} for r in REGISTERS],
        "params": [{"name": p.name, "word": p.word, "width": p.width, "signed": p.signed, "doc": p.doc}
                   for p in PARAMS],
        "bases": {"global": GLOBAL_BASE, "counter": COUNTER_BASE, "security_id": SECURITY_ID_BASE,
                  "histogram": HISTOGRAM_BASE, "param": PARAM_BASE},
        "row_words": ROW_WORDS,
        "histogram_bins": HISTOGRAM_BINS,
        "arm_magic": ARM_MAGIC,
        "states": list(STATES),
        "halt_causes": HALT_CAUSES,
        "gates": {str(g): list(v) for g, v in GATES.items()},
    }


def content_hash():
    """SHA-256 (hex) of the canonical JSON of the map."""
    return hashlib.sha256(json.dumps(as_dict(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


#: What the ``map_hash`` register holds.
MAP_HASH = int(content_hash()[:8], 16)


def to_json():
    """The map with its hash, for tools outside the project."""
    return json.dumps({"hash": content_hash(), **as_dict()}, indent=1)


def to_markdown():
    """Documentation page of the map."""
    out = ["# Register map", "",
           "Generated from `hdl/control/registers.py` by `make docs`. 16-bit word addresses, 32-bit words. "
           "`rw` holds a value, `ro` shows one, `wo` acts on a write, `count` is a saturating counter; `limit` is "
           "`rw`, but what is written has an effect with `commit`.", "",
           f"Content hash: `{content_hash()}`", "", "| addresses | what |", "|---|---|",
           f"| from `0x{GLOBAL_BASE:04x}` | registers, see below; counters from `0x{COUNTER_BASE:04x}` |",
           f"| from `0x{SECURITY_ID_BASE:04x}` | SecurityID of the feed, one word an instrument; 0 = unused; writable "
           "while DISARMED |",
           f"| from `0x{HISTOGRAM_BASE:04x}` | latency histogram: {HISTOGRAM_BINS} counters, one for every number of "
           "cycles, the last one for all longer ones; read only |",
           f"| from `0x{PARAM_BASE:04x}` | parameter rows, {ROW_WORDS} words an instrument, see below |", ""]
    for section in dict.fromkeys(r.section for r in REGISTERS):
        out += [f"## {section}", "", "| address | name | access | bits | what |", "|---|---|---|---|---|"]
        out += [f"| `0x{r.address:04x}` | `{r.name}` | {'limit' if r.limit else r.access} | {r.width} | {r.doc} |"
                for r in REGISTERS if r.section == section]
        out.append("")
    out += ["## Parameter rows", "",
            f"Word *w* of instrument *n* stands at `0x{PARAM_BASE:04x} + {ROW_WORDS} n + w` in the shadow bank; "
            "`commit` makes all rows active in one cycle.", "",
            "| word | name | bits | signed | what |", "|---|---|---|---|---|"]
    out += [f"| {p.word} | `{p.name}` | {p.width} | {'yes' if p.signed else 'no'} | {p.doc} |" for p in PARAMS]
    out += ["", "## Gates", "", "Bits of the reasons of a decision, and the counters `drop_*`.", "",
            "| bit | gate | what it watches | it blocks if |", "|---|---|---|---|"]
    out += [f"| {bit} | {name} | {watches} | {blocks} |" for bit, (name, watches, blocks) in GATES.items()]
    out += ["", "## Values", "", f"`arm` takes `0x{ARM_MAGIC:08x}` only.", "", "| `state` | name |", "|---|---|"]
    out += [f"| {value} | {name} |" for value, name in enumerate(STATES)]
    out += ["", "| bit of `halt_cause` | name |", "|---|---|"]
    out += [f"| {bit} | {name} |" for name, bit in HALT_CAUSES.items()]
    return "\n".join(out) + "\n"
