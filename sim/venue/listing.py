"""An exchange that lists what a configuration file quotes."""

from fractions import Fraction

from host import params

from .config import ClientSpec, InstrumentSpec, MmpGroupSpec, VenueConfig
from .market import FeedMapping
from .tcp_peer import PeerConfig


def venue_config(config, secret, **changes):
    """:class:`VenueConfig` for a :class:`host.config.Config`: its instruments, its client with ``secret``, its group.

    ``changes`` override arguments of :class:`VenueConfig`; ``group`` (a mapping) those of :class:`MmpGroupSpec`.
    """
    group = changes.pop("group", {})
    instruments = []
    for i in config.instruments:
        mult, exponent = params.lot_words(i.lot)
        middle = params.nearest(Fraction(i.reference_price) / Fraction(i.tick))
        instruments.append(InstrumentSpec(i.instrument_id, i.name, int(Fraction(i.tick) * 10 ** 9), lot_mult=mult,
                                          lot_exp=exponent, reference_ticks=max(1, middle)))
    client = config.session.client_id
    return VenueConfig(**({
        "instruments": instruments, "groups": (MmpGroupSpec(config.session.mmp_group, client, **group),),
        "clients": (ClientSpec(client, secret),)} | changes))


def feed_mappings(config):
    """:class:`FeedMapping` of every instrument; one unit of the feed's size is one lot."""
    return [FeedMapping(i.security_id, i.instrument_id, params.ref_scale(i.feed_tick, i.tick))
            for i in config.instruments]


def feed_ticks(config):
    """Feed ticks as wire mantissas, by SecurityID, for :func:`sim.venue.feed.feed_events`."""
    return {i.security_id: params.feed_tick_mantissa(i.feed_tick, config.feed.price_exponent)
            for i in config.instruments}


def peer_config(config, mac, **changes):
    """:class:`PeerConfig` at the address that the configuration connects to; ``mac`` is the exchange's."""
    return PeerConfig(**({"mac": mac, "ip": int(config.session.peer_ip), "port": config.session.peer_port} | changes))
