"""Cord data sets converted, planned and preprocessed by nnU-Net: one cell."""

from spine_tasks.job import main

if __name__ == "__main__":
    main("cord_preprocessing")
