"""How it is measured: cases, times, memory, errors, the machine."""
