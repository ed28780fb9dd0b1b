"""NAICS: the 2,125 industry codes in hyperbolic space, and business text to code."""
