"""``python -m maskless`` is the command ``maskless``; torchrun starts it so."""

from maskless.cli import main

main()
