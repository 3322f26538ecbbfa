"""Predict images by published weights or by a complete run, and score them where masks are."""

from spine_tasks.predict import main

if __name__ == "__main__":
    main()
