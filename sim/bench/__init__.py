"""`make bench`: latency of the gateware, cycle by cycle at its pins, and what must hold with it.

:mod:`~sim.bench.session` drives the virtual board and the golden model, :mod:`~sim.bench.traffic` writes the market's
side of every case, :mod:`~sim.bench.measure` reads figures off the frames on both ports, :mod:`~sim.bench.audit` holds
frames against decisions, :mod:`~sim.bench.cases` puts them together, :mod:`~sim.bench.results` gathers what the cases
have found, and :mod:`~sim.bench.document` writes the tables of the documentation from it.
"""
