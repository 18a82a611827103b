"""Code that runs inside a sandbox and tries to get out; standard library only."""
