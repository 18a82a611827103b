"""What can be done to a target: the engine, the experiments and the worker's own code."""
