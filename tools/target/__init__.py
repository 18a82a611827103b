"""The target: checking, loading, rendering, sampling and scoring."""
