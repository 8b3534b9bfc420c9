r"""What does not depend on time: the generator of a steady process, its null vector and spectrum.

With a steady drift and noise the discretized equation is :math:`M\dot\rho = -N\rho`. Its transpose
is the backward equation for observables, :math:`M\dot u = -N^\top u`; both are solved here without
time steps, by factorizations of N with some rows closed.
"""
