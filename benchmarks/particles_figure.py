"""Figure of bench_particles.py: errors at a wall by the length of the step."""

from typing import Any

from matplotlib.figure import Figure


def draw(result: Any) -> dict[str, Figure]:
    """One figure."""
    rows = result["tables"]["orders"]
    dt = [row["dt"] for row in rows]
    figure = Figure(figsize=(5.5, 4.0), layout="constrained")
    axes = figure.subplots()
    for key, label in (
        ("clipped", "clipped to the wall"),
        ("EulerMaruyama", "Euler-Maruyama, mirrored"),
        ("Heun", "Heun, mirrored"),
    ):
        axes.loglog(dt, [abs(row[key]) for row in rows], "o-", label=label)
    axes.loglog(dt, [row["standard error"] for row in rows], "k:", label="standard error")
    for power, style in ((0.5, "--"), (1.0, "-.")):
        scale = 1.3 * abs(rows[0]["clipped" if power == 0.5 else "EulerMaruyama"]) / dt[0] ** power
        axes.loglog(dt, [scale * h**power for h in dt], "0.6", ls=style, label=f"order {power:g}")
    axes.set_xticks(dt, [f"{h:.3g}" for h in dt], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("step")
    axes.set_ylabel("error of the mean distance from the wall")
    axes.legend(fontsize=8)
    return {"": figure}
