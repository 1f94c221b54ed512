"""What is asked: the sweep a script states, its grid, and what the command line makes of it."""
