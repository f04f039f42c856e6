"""Rewards of the toy world: its exact oracle and its two CLIPs."""
