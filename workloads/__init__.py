"""What one trial is: its configuration, its data, its model and how it is trained. Knows nothing of Ray."""
