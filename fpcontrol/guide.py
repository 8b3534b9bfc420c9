"""Which scheme, degree and steps to take for which problem; measured errors in ``docs/guide.md``.

- *Smooth data, drift tangent to the walls*: degree 3 and ``SDIRK4()`` (orders 4 and 4). If 1e-3 is
  enough, what is taken unless told otherwise: degree 2, ``CrankNicolson()``, some 20 steps.
- *A drift that switches, v.n != 0*: ``SDIRK2()`` or ``SDIRK4()``, four or more steps a piece.
- *A density with a jump*: ``SDIRK2()``, degree 1 or 2, the jump on edges of cells.
- *A density that must stay positive*: ``Limited()``, of order 2 where it is resolved, with
  ``SDIRK2()`` where steps are long for the layers at walls; ``Monotone()`` is linear and cheaper,
  of order 1.
- *Optimizing a network*: ``CrankNicolson()`` with four steps a piece, one solve a step forward and
  one in reverse; run the result once with ``SDIRK4()`` to see the scheme's share in it.
- *A steady drift*: ``fpc.drift.Steady(f)``; in 2-D it is factored once.
- *No noise*: ``fpcontrol.characteristics``, never a mesh.
"""
