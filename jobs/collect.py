"""Turn the runs of a launched grid into tables, paired statistics and figures."""

from spine_tasks.collect.command import main

if __name__ == "__main__":
    main()
