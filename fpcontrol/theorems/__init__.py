"""Statements of the theory as experiments: what is claimed, predicted, measured, and how well.

One module a statement. An experiment is a function of its parameters that returns a ``Study``; a
module's ``experiments(quick)`` lists those that ``fpcontrol verify`` runs.

Labels say where a statement comes from: quoted from the papers (``quoted``), reconstructed because
the printed hypotheses were not at hand (``reconstructed``), or derived here (``own``).
"""
