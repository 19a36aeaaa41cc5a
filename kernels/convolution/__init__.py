"""What the kernels of the convolutions share."""
