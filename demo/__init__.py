"""The embedded demo world: its data, its model, and the demo that shows the service on them."""
