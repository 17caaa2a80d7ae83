"""``python -m fedgc`` is the command ``fedgc``."""

from fedgc.cli import main

if __name__ == "__main__":
    main()
