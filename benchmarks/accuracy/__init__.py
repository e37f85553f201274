"""What lookups keep of a model's quality, and at what time, beside int8 elsewhere: `python -m benchmarks.accuracy`.

A task has three disjoint splits with fixed seeds: samples to calibrate on (no labels), samples the compiler may choose
by, and the test split, which decides nothing and gives every figure here.
"""
