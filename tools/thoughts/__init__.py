"""Chains of thought: split from the answer, resampled, and what replies come out as."""
