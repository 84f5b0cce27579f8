"""Slow and obvious versions of what the recommender does fast."""

import numpy as np


def rerank(items, scores, alike, category, k, diversity, needed, places):
    """One user's list, a choice at a time."""
    left, chosen = [(h, s) for h, s in zip(items, scores, strict=True) if h >= 0], []
    if diversity == 0:
        return [h for h, _ in left][:k]
    while left and len(chosen) < k:
        kinds = {category[h] for h in chosen}
        allowed = left
        if len(chosen) < places and needed - len(kinds) >= places - len(chosen):
            fresh = [(h, s) for h, s in left if category[h] not in kinds]
            allowed = fresh or left
        values = [
            np.float32(s * (1 - diversity))
            - max((np.float32(alike[h, c]) * np.float32(diversity) for c in chosen), default=np.float32(0))
            for h, s in allowed
        ]
        best = allowed[int(np.argmax(values))]
        chosen.append(best[0])
        left.remove(best)
    return chosen
