"""Weights of methods: from files into models and back.

In the order in which a file passes: `layouts` describes the names that a public implementation
gives to weights; `parts` finds the networks of a method in a checkpoint, and their options;
`options` settles them with those of the user; `skeleton` gives the shapes of a model without its
memory; `translation` maps keys and checks values; `files` runs all of this to fill or build a
model; `saving` writes one.
"""
