"""The review app: a run, its verdict, and the evidence behind each claim, in a browser."""
