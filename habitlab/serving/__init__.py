"""The service: answers requests, takes events, and lets the next answer count them.

A request goes `server` > `app` > `service` > `cache` (memory or Redis, database) > `answers`; an event goes `events` >
`updater` > `history`. How the service does stands in `monitoring`, how its models change in `learning`.
"""
