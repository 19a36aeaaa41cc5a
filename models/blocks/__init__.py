"""Parts that several methods are built of.

`pictures` has compositing, sizes and ranges of pictures and holes; `conv_block` a convolution with
normalisation and activation; `spectral_norm` the weights of critics; `two_stage` the generators of
DeepFill v1 and v2; `centre` the window around a hole of Context Encoders; `lines` has sketches and
edges of a user's, and `canny` finds edges.
"""
