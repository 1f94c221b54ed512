"""Everything that defines one trial: configuration, data, model and training. Independent of Ray."""
