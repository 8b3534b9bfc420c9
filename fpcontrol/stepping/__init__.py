"""Time: schemes as values, their step with its tangent and transpose, and its operators."""
