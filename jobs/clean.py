"""Free the checkpoints of a launched grid's complete cells; results stay."""

from spine_tasks.clean import main

if __name__ == "__main__":
    main()
