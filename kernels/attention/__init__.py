"""What the kernels of contextual attention and ID-MRF share."""
