"""Decoders that cannot collapse, the ordinary ones they are compared with, and what trains and measures both (theory/T5).

A file here holds one idea of that family; what judges a decoder of anybody's making lives in `identkit.numeric`. Networks
hold many members (seeds, settings) at once: the first axis of every parameter, buffer and batch.
"""
