"""`python -m relation_neurons` is `relation-neurons`."""

from relation_neurons.cli.app import main

if __name__ == "__main__":
    main()
