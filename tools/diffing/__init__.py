"""How a target and its reference differ inside: activations, and what they are about to say, on the same tokens."""
