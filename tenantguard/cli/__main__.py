"""The command line as ``python -m tenantguard.cli``."""

from tenantguard.cli import main

if __name__ == "__main__":
    main()
