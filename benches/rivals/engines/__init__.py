"""The rivals, one module each: what it needs, what it validates, its formulations, and `run(task)` for a worker."""
