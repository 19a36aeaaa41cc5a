"""Proofs that the methods learn.

- `compare`: a learned network beside fillers without training, on pictures that are held out.
- `overfit`: each of the ten methods learns three photographs by heart.
- `photos`: crops of freely licensed photographs, for training and held out.
- `sheets`: contact sheets and curves.
"""
