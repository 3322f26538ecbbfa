"""The tasks: each module has `train(cell, run)`."""
