"""Which trials are the same training for how long: each distinct epoch is trained once."""
