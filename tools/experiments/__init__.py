"""The experiments: one module per tool, found without a registry."""
