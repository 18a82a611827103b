"""What an answer is due to, estimated from gradients and checked by replacing activations."""
