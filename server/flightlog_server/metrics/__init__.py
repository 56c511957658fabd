"""The metric index: columnar chunks per (run, writer, metric), from which charts and histories are answered.

It is an index: everything in it can be rebuilt from the journals' lines that the server keeps as they came.
"""
