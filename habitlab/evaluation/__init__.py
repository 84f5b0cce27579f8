"""Does it hold, for whom, and may the number be trusted? Every number comes from `estimates`, with an interval by user.

- what people do, and the claims about it (reports 02, 03): `behaviour`, `claims`
- what models learn and say (04, 07): `model_tables`, `cold_start`, `explained`
- which model finds what people take up (05): `splits`, `metrics`, `ranked_lists`, `leaderboard`
- what tuning is worth (06): `tuning`
- are groups served alike (08): `fairness`
- what a trial says (09): `experiments`
- what a log says of another policy, and which offline number predicts what happens (12): `offpolicy`
- do lists narrow (11): `closed_loop`
"""
