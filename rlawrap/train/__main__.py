"""`python -m rlawrap.train`, what torchrun starts."""

from rlawrap.train.commands.torchrun_process import main

if __name__ == "__main__":
    main()
