"""The service: answers requests, takes events, and lets the next answer count them."""
