"""Linear probes with their controls: closed-form fits, cross-validation, baselines, and what a probe may claim."""
