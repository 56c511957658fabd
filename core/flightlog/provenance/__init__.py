"""Where a run comes from: the program, its code and packages, the machine and the job (docs/provenance.md).

Nothing is imported here: `quick` is wanted at every init, `collect` by a thread only.
"""
