"""Spine-imaging deep-learning experiments as grids of cells, on Slurm or on this machine."""
