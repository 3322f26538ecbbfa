"""Healthy and sick discs by Faster R-CNN: train and score one cell."""

from spine_tasks.job import main

if __name__ == "__main__":
    main("disc_faster_rcnn")
