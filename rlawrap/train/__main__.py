"""`python -m rlawrap.train`, what torchrun starts."""

from rlawrap.train.command import main

if __name__ == "__main__":
    main()
