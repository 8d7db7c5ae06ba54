"""`python -m fastgru`."""

from fastgru.cli import main

if __name__ == "__main__":
    main()
