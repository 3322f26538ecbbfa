"""Stop the jobs of a launched grid; every cell can be continued."""

from spine_tasks.cancel import main

if __name__ == "__main__":
    main()
