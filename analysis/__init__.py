"""What happened: files, statistics, pictures and the report of finished and running sweeps. Needs neither Ray nor torch."""
