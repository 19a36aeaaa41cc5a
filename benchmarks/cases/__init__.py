"""What is measured: one file an operator, and the layers of the ten networks."""
