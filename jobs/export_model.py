"""Export the detector of a run as one file that runs without this project."""

from spine_tasks.export_model import main

if __name__ == "__main__":
    main()
