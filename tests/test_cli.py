"""``fpcontrol verify``: what it runs, what it prints and writes, and what it answers."""
