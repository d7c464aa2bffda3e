"""The exchange that a host configuration expects: its instruments, its client, its protection group."""

from hdl.layout import sbe
from host import params

from .config import ClientSpec, InstrumentSpec, MmpGroupSpec, VenueConfig

_LAST_VERSION = sbe.load("starbase_orders").version


def venue_config(config, secret, **options):
    """:class:`VenueConfig` that lists what a :class:`host.config.Config` quotes and lets its client in.

    ``options`` are further fields of :class:`VenueConfig`, such as ``heartbeat_s``.
    """
    session = config.session
    instruments = []
    for i in config.instruments:
        mult, exponent = params.lot_words(i.lot)
        instruments.append(InstrumentSpec(i.instrument_id, i.name, int(i.tick * 10 ** 9), lot_mult=mult,
                                          lot_exp=exponent))
    return VenueConfig(instruments, (MmpGroupSpec(session.mmp_group, session.client_id),),
                       (ClientSpec(session.client_id, secret),), schema_versions=(12, _LAST_VERSION), **options)
