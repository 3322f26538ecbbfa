"""Show where each cell of a launched grid stands."""

from spine_tasks.status import main

if __name__ == "__main__":
    main()
