"""What happened: files, statistics, pictures and the report of sweeps. Needs neither Ray nor torch."""
