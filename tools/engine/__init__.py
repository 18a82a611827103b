"""The engine: batches of many requests, each with its own edits and captures, through one model.

What a request yields depends on the request alone, never on what it was batched with. It is thread-safe: callers in
several threads share the batches.
"""
