"""Cases to measure: one file ``bench_<op>.py`` for each operator, and one for the methods.

Each of these files gives `CASES` and `setup`, which turns a case into a problem. The convolutions
share `conv_layers` (every layer of the ten methods), `conv_contestants` (inputs, our operator, the
public formula), `conv_errors` (the judges) and `conv_problems` (cases and problems from these).
"""
