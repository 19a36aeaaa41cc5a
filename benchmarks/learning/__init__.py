"""Proofs that the methods learn.

- `overfit`: each of the ten methods learns three photographs by heart.
- `photos`: crops of freely licensed photographs, for training and held out.
- `sheets`: contact sheets and curves.
"""
