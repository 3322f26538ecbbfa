"""Cord segmentation by nnU-Net: train and score one cell."""

from spine_tasks.job import main

if __name__ == "__main__":
    main("cord_nnunet")
