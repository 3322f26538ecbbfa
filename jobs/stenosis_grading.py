"""Grades of lumbar levels from crops of images: train and score one cell."""

from spine_tasks.job import main

if __name__ == "__main__":
    main("stenosis_grading")
