# amaranth: UnusedElaboratable=no
"""G14: the token buckets."""

from amaranth.hdl import Assert, Cover

from hdl.gate.buckets import TokenBuckets
from tests.proof.obligation import Proof, before


def _session(m, buckets, _):
    size = before(m, buckets.session_burst, "burst")        # what the bucket goes by
    was_size, was = before(m, size, "size"), before(m, buckets.tokens, "tokens")
    spent = before(m, buckets.spend_session & buckets.cancel_ok, "spent")
    filled = before(m, buckets.fill, "fill")
    m.d.comb += [
        # Never above the size, never below zero: nothing is added to what wraps.
        Assert(buckets.tokens <= was_size),
        Assert(buckets.cancel_ok == (buckets.tokens != 0)),
        # One comes or goes at a time, unless all is made new.
        Assert(filled | (buckets.tokens <= was + 1)),
        Assert(~(spent & (buckets.tokens > was)) | filled),
        Assert(~(spent & ~filled & (was <= was_size)) | (buckets.tokens == was) | (buckets.tokens == was - 1)),
        # What is kept for cancels is not spent on quotes.
        Assert(~buckets.new_ok | (buckets.tokens > was_size[2:])),
        Assert(~buckets.new_ok | (buckets.tokens != 0)),
        Cover((buckets.tokens == was_size) & (was_size == 5)), Cover(spent & (buckets.tokens == 0)),
        Cover(~filled & (buckets.tokens == was + 1)), Cover(buckets.new_ok),
        Cover(buckets.cancel_ok & ~buckets.new_ok & before(m, buckets.new_ok, "new_ok")),
    ]


PROOFS = (
    Proof(
        "session_tokens", "Tokens neither run over nor below zero",
        "G14",
        "The session's bucket never holds more than its size nor less than nothing, gains at most one token a cycle "
        "but by arming, and loses one by a frame; a quote finds more in it than the quarter that is kept for "
        "cancels.",
        lambda: TokenBuckets(2), _session, depth=4, cover_depth=20),
)
