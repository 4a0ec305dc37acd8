"""The project package: wiring only, no behaviour."""

__version__ = "0.1.0"
