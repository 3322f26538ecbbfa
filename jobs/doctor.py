"""Say what a cluster is, what is to be mended before cells are launched there, and try it out."""

from spine_tasks.doctor import main

if __name__ == "__main__":
    main()
