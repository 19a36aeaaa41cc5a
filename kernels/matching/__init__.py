"""Search for nearest patches: `search` launches the kernels of `search_kernels`."""
