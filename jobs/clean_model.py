"""Write the weights of a checkpoint, and nothing else, as safetensors."""

from spine_tasks.clean_model import main

if __name__ == "__main__":
    main()
