"""Predict images by published weights or complete runs, and score them where references are."""

from spine_tasks.predict import main

if __name__ == "__main__":
    main()
