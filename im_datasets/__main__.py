"""``python -m im_datasets``: the command line."""

from im_datasets.cli.main import main

if __name__ == "__main__":
    main()
