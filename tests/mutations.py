"""Defects for ``mutation.py``: one textual change of the package each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A defect.

    Attributes:
        name: What is wrong.
        file: Which file, in the package.
        old: What stands there, exactly once.
        new: What it is replaced by.
        first: Which checks run first.
    """

    name: str
    file: str
    old: str
    new: str
    first: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "D of the other sign in the Moser drift",
        "discretization/galerkin.py",
        "self.elements.gradient(potential + diffusivity * rho)",
        "self.elements.gradient(potential - diffusivity * rho)",
        ("t4.exact",),
    ),
    Mutation(
        "D = sigma**2",
        "noise.py",
        "return 0.5 * self(t) ** 2",
        "return self(t) ** 2",
        ("t1.oscillating",),
    ),
    Mutation(
        "speed of the Moser flow for T = 1 only",
        "reference.py",
        "self._slopes = np.diff(levels, axis=0) / np.diff(times)[:, None]",
        "self._slopes = np.diff(levels, axis=0)",
        ("gradient.closed_form",),
    ),
    Mutation(
        "advection of the other sign",
        "discretization/galerkin.py",
        "self._system.advection_values(v, -self._scale,",
        "self._system.advection_values(v, self._scale,",
        ("t4.exact",),
    ),
    Mutation(
        "operator of an earlier drift used again",
        "linalg/buffers.py",
        "            fill(value)\n",
        "            _ = full or fill(value)\n",
        ("t4.exact", "gradient"),
    ),
    Mutation(
        "drift at the start of the step",
        "stepping/schemes.py",
        "    b: ClassVar = (1.0,)\n    c: ClassVar = (0.5,)",
        "    b: ClassVar = (1.0,)\n    c: ClassVar = (0.0,)",
        ("t4.exact", "t3"),
    ),
    Mutation(
        "one weight of SDIRK4 off by 1 %",
        "stepping/schemes.py",
        "    b: ClassVar = (25 / 24, -49 / 48, 125 / 16, -85 / 12, 1 / 4)",
        "    b: ClassVar = (25 / 24, -49 / 48, 125 / 16, -85 / 12, 1.01 / 4)",
        ("equation.time",),
    ),
    Mutation(
        "quadrature of half the degree",
        "discretization/elements.py",
        "    if asked is None:\n        return 2 * degree\n",
        "    if asked is None:\n        return degree\n",
        ("t2.entropy.kink",),
    ),
    Mutation(
        "no mass correction after a linear solve",
        "discretization/restoration.py",
        "shift = g.integral(np.subtract(y, start, out=d)) / g.volume",
        "shift = 0.0 * np.subtract(y, start, out=d)[0]",
        ("equation",),
    ),
    Mutation(
        "rows of absorbing walls not closed",
        "discretization/absorbing.py",
        "        values[self._closed] = self._closing\n",
        "        _ = self._closing\n",
        ("equation.walls",),
    ),
    Mutation(
        "mass given back where walls absorb",
        "discretization/base.py",
        "result.restoration = walls, NoRestoration(walls, self.positive)",
        "result.restoration = walls, self.restoration",
        ("equation.walls",),
    ),
    Mutation(
        "mass of the step left out of what walls absorb",
        "discretization/absorbing.py",
        "self._leaving_mass * r[self._columns] - leaving",
        "0.0 * r[self._columns] - leaving",
        ("equation.walls",),
    ),
    Mutation(
        "adjoint solves not transposed",
        "stepping/runge_kutta.py",
        "self.solver.solve_transpose(b.petsc_vec, y.petsc_vec)",
        "self.solver.solve(b.petsc_vec, y.petsc_vec)",
        ("gradient",),
    ),
    Mutation(
        "no dual of the cost at the start of a step",
        "control/sweeps.py",
        "            self._add_level(n, old)\n",
        "            pass\n",
        ("gradient",),
    ),
    Mutation(
        "no factor at the walls",
        "walls.py",
        "return g, (1.0 - g * g) / self.layer, slope, curvature",
        "return np.ones_like(g), (1.0 - g * g) / self.layer, slope, curvature",
        ("gradient",),
    ),
    Mutation(
        "divergence of the other sign along characteristics",
        "characteristics/dormand_prince.py",
        "rate = np.column_stack([v, self._divergence(t, x)])",
        "rate = np.column_stack([v, -self._divergence(t, x)])",
        ("t1.oscillating.sigma=0",),
    ),
    Mutation(
        "diffusion as an upwind mesh would make it, without noise",
        "characteristics/dormand_prince.py",
        "                k[s] = self._rate(inside(t + rk.C[s] * h), stage[:, :-1])",
        """                k[s] = self._rate(inside(t + rk.C[s] * h), stage[:, :-1])
                k[s][:, -1] -= 0.02 * stage[:, -1]""",
        ("t1.oscillating.sigma=0",),
    ),
    Mutation(
        "constant density in a cell of markers, as on a mesh",
        "characteristics/flow.py",
        "return Flow(markers, times, levels[:, :, :-1], levels[:, :, -1], stepper.accepted)",
        """n, log_j = markers.per_cell or 1, levels[:, :, -1]
    cells = np.log(np.exp(log_j).reshape(len(levels), -1, n).mean(axis=2))
    log_j = np.repeat(cells, n, axis=1)
    return Flow(markers, times, levels[:, :, :-1], log_j, stepper.accepted)""",
        ("t1.oscillating.sigma=0",),
    ),
    Mutation(
        "Wasserstein distance without its root",
        "distances/measures.py",
        "value = (mass * quantile_cost(F, G, p)) ** (1.0 / p)",
        "value = mass * quantile_cost(F, G, p)",
        ("t1.oscillating",),
    ),
    Mutation(
        "Wasserstein distance of flows without densities",
        "characteristics/flow.py",
        "return self.markers.integral(distance**p * self.markers.density) ** (1.0 / p)",
        "return self.markers.integral(distance**p) ** (1.0 / p)",
        ("equation",),
    ),
    Mutation(
        "mass of a cell of markers that ends one marker early",
        "characteristics/flow.py",
        "x = self.positions[level].reshape(-1, markers.per_cell)[:, [0, -1]].ravel()",
        "x = self.positions[level].reshape(-1, markers.per_cell)[:, [0, -2]].ravel()",
        ("equation",),
    ),
    Mutation(
        "entropy of the other density",
        "distances/measures.py",
        "    density = np.where(b_q > 0.0, b_q * (xlog1py(1.0 + excess, excess) - excess)",
        "    density = np.where(b_q > 0.0, a_q * (xlog1py(1.0 + excess, excess) - excess)",
        ("equation",),
    ),
    Mutation(
        "cost without the halves at the ends of time",
        "control/costs.py",
        "weights[[0, -1]] = 0.5",
        "weights[[0, -1]] = 1.0",
        ("gradient.closed_form",),
    ),
    Mutation(
        "estimates without Gronwall's factors",
        "certificates.py",
        "np.array([fast / D, compression, 0.0, gap / D, 0.0])",
        "np.array([fast / D, 0.0, 0.0, 0.0, 0.0])",
        ("estimates",),
    ),
    Mutation(
        "Gronwall's factors upside down",
        "certificates.py",
        "np.array([fast / D, compression, 0.0, gap / D, 0.0])",
        "np.array([fast / D, -compression, 0.0, -gap / D, 0.0])",
        ("estimates",),
    ),
    Mutation(
        "expansion for compression in (E2)",
        "certificates.py",
        "inward = -np.asarray(divergence(t, g.points))",
        "inward = np.asarray(divergence(t, g.points))",
        ("estimates",),
    ),
    Mutation(
        "about half the constant of (E3')",
        "certificates.py",
        "np.array([1.0, 0.5, 0.5, 1.0, 0.25])",
        "np.array([1.0, 0.5, 0.5, 0.51, 0.25])",
        ("estimates",),
    ),
    Mutation(
        "score-matching loss too small by a sixth",
        "theorems/closed_forms/score_networks.py",
        "total += ds * float(square.sum()) * 0.5 / self.n",
        "total += ds * float(square.sum()) * 0.5 / self.n / 1.2",
        ("t1.samplers",),
    ),
    Mutation(
        "a third of the bound of the reverse ODE",
        "theorems/runs/reversal.py",
        "        growth += ds * rate\n    return total",
        "        growth += ds * rate\n    return total / 3.0",
        ("t1.samplers",),
    ),
    Mutation(
        "ripple of twice the frequency",
        "theorems/closed_forms/ripples.py",
        "        return self.a / self.k * np.sin(self.k * x)\n",
        "        return self.a / self.k * np.sin(2.0 * self.k * x)\n",
        ("t1.oscillating",),
    ),
    Mutation(
        "divergence of the co-moving ripple without its bend",
        "theorems/closed_forms/ripples.py",
        "np.cos(phase) - np.sin(phase) / self.k * bend",
        "np.cos(phase)",
        ("t3.control.standing",),
    ),
    Mutation(
        "ripple left behind by the flow",
        "theorems/closed_forms/ripples.py",
        "np.sin(self.k * rho.cdf(x)) / rho.value(x)",
        "np.sin(self.k * self.line.at(0.0).cdf(x)) / rho.value(x)",
        ("t4.ripple",),
    ),
    Mutation(
        "flux of the straight line off by 0.1 %",
        "theorems/closed_forms/profiles.py",
        "return (self.start.cdf(x) - self.goal.cdf(x)) / self.t1",
        "return 1.001 * (self.start.cdf(x) - self.goal.cdf(x)) / self.t1",
        ("t4.exact.sigma=0",),
    ),
    Mutation(
        "Moser potential off by 1e-7",
        "reference.py",
        "return [potential(g, self._dual(slope), parts, stiffness) for slope in self._slopes]",
        "return [potential(g, 1.0000001 * self._dual(u), parts, stiffness) for u in self._slopes]",
        ("t4.exact",),
    ),
    Mutation(
        "gradient without the neurons' shifts",
        "control/hidden_layer.py",
        "parts = s[:, i] @ p.T, dz @ y[:, i].T, dz.sum(axis=1)",
        "parts = s[:, i] @ p.T, dz @ y[:, i].T, 0.0 * dz.sum(axis=1)",
        ("gradient.identities",),
    ),
    Mutation(
        "half the constants of (E2), (E3) and (E4)",
        "certificates.py",
        "np.array([1.0, 0.5, 0.5, 1.0, 0.25])",
        "np.array([1.0, 0.25, 0.25, 1.0, 0.125])",
        ("estimates.sharp",),
    ),
    Mutation(
        "score of the heat flow off by 1 %",
        "noising/line.py",
        "return self.slope(s, x) / self.density(s, x)",
        "return 0.99 * self.slope(s, x) / self.density(s, x)",
        ("t2.entropy.kink",),
    ),
    Mutation(
        "noising that the walls do not reflect",
        "noising/pieces.py",
        "images = IMAGES if self.walls else IMAGES[:1]",
        "images = IMAGES[:1]",
        ("t2.walls_or_line", "t2.entropy"),
    ),
    Mutation(
        "no drift of the noising process in its reversal",
        "noising/line.py",
        "score - self.noising.pull(x[:, 0])",
        "score",
        ("t2.walls_or_line",),
    ),
    Mutation(
        "Langevin dynamics of one mode alone",
        "theorems/experiments/score_limits.py",
        "0.5 * sigma**2 * two_modes(x, m, p1)[1]",
        "-0.5 * sigma**2 * (x - m)",
        ("t2.mode_weights",),
    ),
    Mutation(
        "bounded fields of half the size",
        "theorems/experiments/vacuum.py",
        "return v / np.sqrt(1.0 + (v / self.limit) ** 2)",
        "return 0.5 * v / np.sqrt(1.0 + (v / self.limit) ** 2)",
        ("t2.gap.bounded",),
    ),
    Mutation(
        "reverse SDE of half the drift",
        "theorems/runs/reversal.py",
        "2.0 * flow.D * net(flow.t1 - t, x)",
        "flow.D * net(flow.t1 - t, x)",
        ("t1.samplers",),
    ),
    Mutation(
        "reverse ODE at twice the speed",
        "theorems/runs/reversal.py",
        "    mean = flow.D * ",
        "    mean = 2.0 * flow.D * ",
        ("t1.samplers.atom",),
    ),
    Mutation(
        "slots without the factor m",
        "theorems/runs/generators.py",
        "return len(self.generators) * self.generators.sum([self.piece(t)], x)",
        "return self.generators.sum([self.piece(t)], x)",
        ("t5.with.sigma=0.2",),
    ),
    Mutation(
        "drift of the wrong sign on the disc",
        "theorems/experiments/radial.py",
        "D / r - speed * (r < radius)",
        "D / r + speed * (r < radius)",
        ("t1.disc",),
    ),
    Mutation(
        "network's drift for the reference's in its certificate",
        "control/certified.py",
        "        reference.drift,\n",
        "        problem.drift.with_weights(weights),\n",
        ("estimates.tracking",),
    ),
    Mutation(
        "a tenth of (E3) as the bound in L2",
        "certificates.py",
        "np.fmin(self.e3, self.e3_bounded)",
        "np.fmin(0.1 * self.e3, self.e3_bounded)",
        ("estimates",),
    ),
)
