r"""Which scheme, degree and steps to take for which problem, with measured errors.

In short
--------
- *Smooth data, drift tangent to the walls*: degree 3 and ``SDIRK4()`` (orders 4 and 4). If 1e-3 is
  enough, what is taken unless told otherwise: degree 2, ``CrankNicolson()``, some 20 steps.
- *A drift that switches, v.n != 0*: ``SDIRK2()`` or ``SDIRK4()``, four or more steps a piece.
- *A density with a jump*: ``SDIRK2()``, degree 1 or 2, the jump on edges of cells.
- *Optimizing a network*: ``CrankNicolson()`` with four steps a piece, one solve a step forward and
  one in reverse; run the result once with ``SDIRK4()`` to see the scheme's share in it.
- *A drift that does not depend on time*: ``fpc.drift.Steady(f)``; in 2-D it is factored once.
- *No noise*: ``fpcontrol.characteristics``, never a mesh.

Measured on the unit square up to time 1 (``benchmarks/bench_choices.py``): relative L2 errors, at
the end and the largest at 16 times; seconds of one core, roughly.

Smooth data, v.n = 0
--------------------
A manufactured solution with a drift in motion that is no gradient, sigma = 0.7:

======  =====  =============  =====  =======  =======  =======
degree  cells  scheme         steps  end      largest  seconds
======  =====  =============  =====  =======  =======  =======
1       32^2   CrankNicolson  64     4.9e-4   6.4e-4   0.1
2       16^2   BackwardEuler  64     2.6e-3   2.6e-3   0.1
2       16^2   CrankNicolson  16     1.0e-3   1.0e-3   0.03
2       16^2   CrankNicolson  64     7.3e-5   7.3e-5   0.1
2       16^2   SDIRK4         16     3.9e-5   3.9e-5   0.1
3       12^2   CrankNicolson  64     6.5e-5   6.5e-5   0.1
3       12^2   SDIRK4         16     3.5e-6   3.8e-6   0.15
======  =====  =============  =====  =======  =======  =======

Degree ``p`` is of order ``p + 1`` in L2, the schemes are of their full orders (SDIRK4 3.94 at 256
steps and 3.99 with less noise). Raise the degree before refining the mesh, and the order in time
with it: with Crank-Nicolson, degree 3 is wasted.

Drifts that switch
------------------
A network of width 2 with eight pieces and speeds of order 1 through the walls, sigma = 0.5. Steps
are a multiple of the pieces.

======  =====  =============  =====  =======  =======  =======
degree  cells  scheme         steps  end      largest  minimum
======  =====  =============  =====  =======  =======  =======
2       16^2   BackwardEuler  64     7.2e-3   1.2e-2   0.32
2       16^2   CrankNicolson  16     2.3e-2   5.2e-2   0.02
2       16^2   CrankNicolson  64     1.8e-3   8.0e-3   0.32
2       16^2   SDIRK2         32     5.1e-4   3.1e-3   0.31
2       16^2   SDIRK4         16     6.2e-4   9.2e-3   0.31
3       12^2   SDIRK2         64     1.2e-4   5.2e-4   0.31
3       12^2   SDIRK4         32     1.7e-5   7.5e-4   0.31
======  =====  =============  =====  =======  =======  =======

Each switch makes a layer at the walls, ``sqrt(D dt)`` thick after a step. The L2 error over time is
then of order 5/4 for every scheme of order 2 or more (Crank-Nicolson: 1.1 to 1.2). L-stable schemes
(all others here) forget the layer, and are of full order some steps after the last switch. Two
steps a piece of Crank-Nicolson bring the minimum to 0.02 where the density's is 0.31, one step a
piece to -1.2: look at ``trajectory.minimum``.

Densities with a jump
---------------------
1.6 on the left half and 0.4 on the right, stirred by a steady drift with v.n = 0, sigma = 0.5:

======  =====  =============  =====  =======  =======  =======
degree  cells  scheme         steps  end      largest  minimum
======  =====  =============  =====  =======  =======  =======
1       32^2   BackwardEuler  64     5.2e-3   8.7e-3   0.40
2       16^2   CrankNicolson  16     7.3e-3   6.5e-2   0.16
2       16^2   CrankNicolson  64     5.3e-5   6.6e-3   0.40
2       16^2   SDIRK2         32     7.3e-5   3.2e-3   0.40
3       12^2   SDIRK2         64     8.5e-5   7.8e-4   0.40
3       12^2   SDIRK4         32     9.8e-5   1.5e-3   0.40
======  =====  =============  =====  =======  =======  =======

The L2 error over time is of order 3/4, soon after the start it is large with every scheme; put the
jump on the edges of cells, with the mean value there. The degree brings nothing until the jump is
smoothed over a few cells. Crank-Nicolson is fine once ``dt D/h^2`` is near 1, and rings before.

No noise
--------
``FokkerPlanck`` refuses ``sigma = 0``: a scheme on a mesh oscillates or adds a diffusion of its
own, and that is a noise. First-order upwinding on 500 cells shows an L2 distance of 1.085 where
1.662 is exact (``benchmarks/bench_convergence.py``), much as noise of ``D = mean|v| h/2`` would.
``fpcontrol.characteristics.carry`` has no such error. With the drift (2/k) sin(k x_i),
k = 16 pi, up to time 1, the distance to the density 1 was off by

=========  ======  =======  ========  =======
dimension  markers  rtol     error     seconds
=========  ======  =======  ========  =======
1          320     1e-3     2.3e-4    0.002
1          640     1e-6     2.1e-6    0.003
1          1 280   1e-9     7.7e-8    0.006
2          24 576  1e-4     8.7e-4    0.1
2          98 304  1e-6     3.8e-5    0.6
=========  ======  =======  ========  =======

Take enough markers to see the finest scale of the *result* (flows without noise compress), and
drifts that are tangent or inward at the walls (``fpcontrol.walls.walled(drift, mesh)`` makes any
drift so). The distance to a reference on a mesh is ``flow.l2_errors(MoserFlow(...))``;
``fpcontrol.discretization.replica.MeshReference`` is what asks it, or any finite-element function
in time, at points that move. ``flow.on_mesh(space)`` makes densities to write and to draw.

How to be fast
--------------
- Let a drift say where it is constant (``fpc.drift.Steady``, or a method ``piece``): the operator
  is then made, and its preconditioner or factorization, once a piece.
- The incomplete LU fills by itself where diffusion or the drift calls for it. Still many
  iterations (``trajectory.iterations``)? ``petsc_options={"pc_factor_levels": 4}`` (on several
  ranks ``sub_pc_factor_levels``), or smaller steps.
- Wide networks on degree 1: ``MoserFlow(..., quadrature_degree=1)``, and the equation's alike, has
  a third of the points and -20 to +70 % of the error.
- A derivative is fastest with all levels and operators in memory: see what the run says first, and
  ``memory=``.
- ``linear_solver="direct"`` pays from some fifteen iterations of GMRES on, if a piece has four
  steps or more: its factors are kept for the derivative.

How to be sure
--------------
- ``equation.solve(..., tolerance=1e-4)`` doubles the steps until the estimated error in time is
  below it. For the error in space compare two meshes: ``fpc.distances.l2`` takes densities on both.
- ``trajectory.minimum`` far below zero: more steps after switches and jumps, an L-stable scheme, or
  a finer mesh (cells of about ``2 D/|v|``).
- Krylov solvers stop at 1e-12: errors below 1e-10 need ``linear_solver="direct"``.
- Re-entrant corners, as on coasts, limit the order in space whatever the degree.
"""
