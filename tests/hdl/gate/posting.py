"""A gate that posts holds, cycle by cycle."""

__all__ = ["PostingBench"]


class PostingBench:
    """Gives inputs and takes posts, which must stand still until they are taken.

    A subclass has ``arrives(instrument, hold, sides)``, for a post in its first cycle; ``sides`` is a set, of 0 the bid
    and 1 the ask.

    Parameters
    ----------
    gate : its number, which every post bears. strobes : inputs that last for a cycle. rng : says when a post is taken,
        if that is left to chance.

    Attributes
    ----------
    takes : chance a cycle that a post is taken. standing : the post that waits, or ``None``. cycle : from 0 on.
    """

    def __init__(self, ctx, dut, gate, strobes, rng=None):
        self.ctx, self.dut, self.gate, self.strobes, self.rng = ctx, dut, gate, strobes, rng
        self.cycle, self.takes, self.standing = 0, 1., None

    async def step(self, cycles=1, **inputs):
        ctx, dut = self.ctx, self.dut
        for name, value in inputs.items():
            ctx.set(getattr(dut, name), value)
        for _ in range(cycles):
            ready = self.takes == 1. or self.rng.random() < self.takes
            ctx.set(dut.post_ready, ready)
            if ctx.get(dut.post):
                assert ctx.get(dut.post_gate) == self.gate
                now = (ctx.get(dut.post_instrument), ctx.get(dut.post_hold),
                       {n for n, side in enumerate((dut.post_bid, dut.post_ask)) if ctx.get(side)})
                if self.standing is None:
                    self.arrives(*now)
                assert self.standing in (None, now)
                self.standing = None if ready else now
            await ctx.tick()
            self.cycle += 1
            for name in self.strobes:
                ctx.set(getattr(dut, name), 0)
