"""Sparse autoencoders: read and write the field's formats, encode fast, train small ones, describe their features."""
