"""What the kernels that look for nearest patches share."""
