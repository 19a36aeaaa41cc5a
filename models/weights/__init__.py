"""Weights: reading files, telling layouts apart, translating keys, saving."""
