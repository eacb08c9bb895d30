"""`python -m relation_neurons` is `relation-neurons`."""

from relation_neurons.cli import main

if __name__ == "__main__":
    main()
