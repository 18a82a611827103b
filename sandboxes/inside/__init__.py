"""What runs inside a sandbox before anything else: standard library only, so that nothing comes before it."""
