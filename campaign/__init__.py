"""A campaign of faults: everything that may go wrong is made to go wrong, as long as there is time.

`python -m campaign` runs it, a module for each part. CONTRIBUTING.md says how to add one.
"""
