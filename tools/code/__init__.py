"""Code written by an agent, on its own copy of the model: the ``python`` tool and the worker that runs it."""
