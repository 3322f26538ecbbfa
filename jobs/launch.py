"""Run every cell of a grid that is not complete, on Slurm or on this machine."""

from spine_tasks.launch import main

if __name__ == "__main__":
    main()
