"""What an experiment returns, how its figures are resolved, and how many of them are run."""
