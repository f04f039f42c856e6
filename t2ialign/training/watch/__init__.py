"""What a run looks at while it trains: held-out rewards, validation images, progress, and finite numbers."""
