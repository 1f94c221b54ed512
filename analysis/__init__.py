"""Files, statistics, plots and the report of sweeps. Needs neither Ray nor torch."""
