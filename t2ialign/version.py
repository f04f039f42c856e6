"""The version, in a file of its own: modules that write it import no more of the package than this."""

__version__ = "0.1.0"
