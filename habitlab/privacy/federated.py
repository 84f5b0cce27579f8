"""The success model in its simple form, learnt without any row of anybody leaving the device it was written on.

Clients are simulated: each holds the rows of one person and offers nothing but `update(weights)`, an answer of the
length of the weights and the number of rows behind it. The server averages the answers (FedAvg; McMahan et al. 2017,
arXiv:1602.05629), with one local step a sum of gradients (FedSGD). Features are brought to one scale by constants known
to all, since means and spreads of them would be told of people.

Threat model: the server is honest but curious: it does what is agreed, and reads whatever it gets. Plain answers tell
it much: of somebody with one row the gradient is that row up to a factor. `secure` adds masks that cancel in the sum
(Bonawitz et al. 2017, doi:10.1145/3133956.3133982, without its repair of drop-outs), so that it sees the sum alone, as
long as it does not work with two neighbours of somebody. `epsilon` clips each answer and adds noise to the sum, so that
the model itself tells little of any one person; being a simulation, it draws that noise from a seed. Not covered: a
server that lies, clients that send lies, and that it is seen who takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.analyses import FEWEST
from habitlab.dataset.vocabulary import Category
from habitlab.evaluation import estimates
from habitlab.evaluation.estimates import Estimate
from habitlab.models.pairs import NAMES, LabelledPairs, label_pairs
from habitlab.privacy.ledger import epsilon_of, rho_of

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Update = Callable[[Floats], tuple[Floats, int]]

SCALES = {
    "time_commitment": 30.0, "goal_set": 1.0, "experience_level": 2.0, "difficulty_preference": 2.0, "areas": 3.0,
    "activities": 3.0, "existing_habits": 3.0, "unanswered": 3.0, "days_since_registration": 90.0, "adopted": 10.0,
    "held": 10.0, "held_minutes": 60.0, "completion_rate": 1.0, "completion_rate_recent": 1.0, "counted_days": 200.0,
    "minutes": 30.0, "difficulty": 5.0, "frequency": 1.0, "category_match": 1.0, "activity_match": 1.0,
    "time_match": 1.0, "budget_left": 60.0, "difficulty_gap": 5.0, "category_completion": 1.0,
}  # fmt: skip
"""What each feature is divided by: constants, known beforehand. Left out: what comes from the rows of other people."""

RIDGE = 5.0
"""Weight of the squared length of the coefficients, against the sum of log losses."""
MOST = 3.0
"""Features are cut here, so that nobody's row is far out."""
_GRID = 2.0**32  # masked sums count in whole steps


class Client:
    """One person's device: `update(weights)` is all it offers; the rows live in that function alone."""

    __slots__ = ("update",)
    update: Update

    def __init__(self, columns: Floats, success: Floats, steps: int = 1, rate: float = 0.5) -> None:
        """Keep the rows (n, d) and labels (n,) of one person; `steps` > 1 learns locally at `rate` (FedAvg)."""
        rows, labels = np.array(columns, dtype=np.float64), np.array(success, dtype=np.float64)

        def update(weights: Floats) -> tuple[Floats, int]:
            """Change of the weights (d,) that these rows ask for, times their number, and the number."""
            local = weights
            for _ in range(steps):
                local = local + rate * (labels - special.expit(rows @ local)) @ rows / len(labels)
            return (local - weights) * len(labels) / rate, len(labels)

        self.update = update


@dataclass(frozen=True)
class Trained:
    """A logistic regression: `weights` (d,), the rounds it took, the epsilon that it keeps at `delta` (inf: none)."""

    weights: Floats
    rounds: int
    epsilon: float
    delta: float

    def probability(self, columns: Floats) -> Floats:
        """Chance of success of each row (n,)."""
        return special.expit(columns @ self.weights)


def features(pairs: LabelledPairs, without: Sequence[str] = ()) -> Floats:
    """Return the columns of the simple form (pairs, d): scaled, a column more where a value is missing, a constant.

    `without`: names of features that are left out, of `SCALES` or `category`.
    """
    parts = [np.ones((len(pairs), 1))]
    for name, scale in SCALES.items():
        if name not in without:
            values = pairs.columns[NAMES.index(name)] / scale
            missing = np.isnan(values)
            parts.append(np.column_stack([np.where(missing, 0.0, np.clip(values, -MOST, MOST)), missing]))
    if "category" not in without:
        category = np.nan_to_num(pairs.columns[NAMES.index("category")], nan=-1).astype(int)
        parts.append((category[:, None] == np.arange(len(Category))).astype(np.float64))
    return np.concatenate(parts, axis=1)


def clients(columns: Floats, success: npt.ArrayLike, user: npt.ArrayLike, **local: Any) -> list[Client]:
    """Hand each person's rows to a client of their own; `local` goes to `Client`."""
    codes, people = pd.factorize(np.asarray(user), sort=True)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(people)))[:-1]
    labels = np.asarray(success, dtype=np.float64)
    return [Client(columns[rows], labels[rows], **local) for rows in np.split(order, ends)]


def secure_sum(answers: Floats, generator: np.random.Generator) -> tuple[Floats, npt.NDArray[np.uint64]]:
    """Sum answers (clients, d) of which the server sees masked ones only; also what it sees (clients, d).

    Each client shares a mask with the next one, adds its own and takes off its neighbour's, modulo 2**64.
    """
    steps = np.rint(answers * _GRID).astype(np.int64).astype(np.uint64)
    masks = generator.integers(0, 2**64, size=answers.shape, dtype=np.uint64)
    masked = steps + masks - np.roll(masks, 1, axis=0)
    return masked.sum(axis=0, dtype=np.uint64).astype(np.int64) / _GRID, masked


def train(
    people: Sequence[Client],
    width: int,
    *,
    rounds: int = 100,
    rate: float = 1.0,
    share: float = 1.0,
    secure: bool = False,
    epsilon: float = np.inf,
    delta: float = 1e-6,
    clip: float = 1.0,
    seed: int = 0,
) -> Trained:
    """Learn from clients, of whom only answers are seen.

    Parameters
    ----------
    width
        Number of weights.
    rounds, rate
        How often all are asked, and how far the server goes, with Nesterov's momentum.
    share
        Of the clients asked in a round, drawn by lot.
    secure
        Sum under masks.
    epsilon, delta, clip
        With an epsilon, answers are cut to the length `clip` and noise is added: the final model is (epsilon,
        delta)-differentially private by user, over all rounds together (no credit is taken for asking a share).
    """
    generator = np.random.default_rng(seed)
    private = np.isfinite(epsilon)
    scale = clip / np.sqrt(2 * rho_of(epsilon, delta) / rounds) if private else 0.0
    asked = max(1, round(share * len(people)))
    weights, momentum = np.zeros(width), np.zeros(width)
    for _ in range(rounds):
        drawn = generator.choice(len(people), asked, replace=False) if asked < len(people) else range(len(people))
        ahead = weights + 0.9 * momentum
        told = [people[number].update(ahead) for number in drawn]
        answers, rows = np.array([answer for answer, _ in told]), sum(count for _, count in told)
        if private:  # the number of rows is not told either: each person counts as one
            length = np.linalg.norm(answers, axis=1, keepdims=True)
            answers, rows = answers * np.minimum(1, clip / np.maximum(length, 1e-12)), len(told)
        total = secure_sum(answers, generator)[0] if secure else answers.sum(axis=0)
        if private:
            total = total + generator.normal(0, scale, width)
        shrink = RIDGE * ahead * len(told) / len(people)
        shrink[0] = 0.0
        momentum = 0.9 * momentum + rate * (total - shrink) / rows
        weights = weights + momentum
    kept = epsilon_of(rounds * (clip / scale) ** 2 / 2, delta) if private else np.inf
    return Trained(weights, rounds, kept, delta)


def central(columns: Floats, success: npt.ArrayLike) -> Trained:
    """Learn the same model from all rows in one place, by Newton's method to the optimum."""
    labels, weights = np.asarray(success, dtype=np.float64), np.zeros(columns.shape[1])
    ridge = np.full(columns.shape[1], RIDGE)
    ridge[0] = 0.0
    for _ in range(50):
        chance = special.expit(columns @ weights)
        slope = (labels - chance) @ columns - ridge * weights
        bend = columns.T @ (columns * (chance * (1 - chance))[:, None]) + np.diag(ridge + 1e-9)
        step = np.linalg.solve(bend, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return Trained(weights, 1, np.inf, 0.0)


def log_loss(probability: Floats, success: npt.ArrayLike) -> Floats:
    """Log loss of each pair (n,), in nats."""
    chance = np.clip(probability, 1e-9, 1 - 1e-9)
    return -np.where(np.asarray(success) > 0, np.log(chance), np.log1p(-chance))


def split_users(user: npt.NDArray[np.int64], share: float = 0.3, seed: int = 0) -> Bools:
    """Say which pairs are held out (n,): all of a user, or none; MissingColumn where too few users are left."""
    people = np.random.default_rng(seed).permutation(np.unique(user))
    held = people[: round(share * len(people))]
    if len(held) < FEWEST:
        raise MissingColumn(f"needs users to hold out: {len(held)} of {len(people)}, at least {FEWEST} are needed")
    return np.isin(user, held)


def compare(
    dataset: Dataset,
    *,
    epsilons: Sequence[float] = (8.0, 2.0),
    rounds: int = 120,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold federated training against central training on users that neither saw.

    Columns: model, key, epsilon, log_loss, gap (log loss more than the central model's), ci_low, ci_high (by user), n
    (users), pairs. Models: the base rate, central, FedSGD, FedAvg (five local steps, a third of the clients a
    round), and FedSGD with noise at each of `epsilons`. MissingColumn where too few pairs can be judged.
    """
    from habitlab.models.success import too_few

    pairs = label_pairs(dataset)
    if why := too_few(pairs):
        raise MissingColumn(f"needs adoptions that can be judged: {why}")
    columns, success, user = features(pairs), pairs.success.astype(np.float64), pairs.user
    held = split_users(user, seed=seed)
    learnt = columns[~held], success[~held], user[~held]
    one_step, five_steps = clients(*learnt), clients(*learnt, steps=5, rate=0.3)
    width = columns.shape[1]
    models: list[tuple[str, str, float, Floats]] = []

    def add(name: str, key: str, model: Trained) -> None:
        models.append((name, key, model.epsilon, log_loss(model.probability(columns[held]), success[held])))

    base = (learnt[1].sum() + 1) / (len(learnt[1]) + 2)
    add("central", "central", central(*learnt[:2]))
    models.append(("base rate", "base", 0.0, log_loss(np.full(held.sum(), base), success[held])))
    add("FedSGD", "fedsgd", train(one_step, width, rounds=rounds))
    add("FedAvg", "fedavg", train(five_steps, width, rounds=rounds, rate=0.3, share=1 / 3, seed=seed))
    for epsilon in epsilons:
        # Noise grows with the number of rounds; ten of them are a fair middle.
        noisy = train(one_step, width, rounds=10, rate=0.5, epsilon=epsilon, seed=seed)
        add(f"FedSGD with noise, epsilon {epsilon:g}", f"noise_{epsilon:g}", noisy)
    reference = models[0][3]
    lines = []
    for name, key, epsilon, losses in models:
        sums = estimates.cluster_sums(user[held], losses - reference, np.ones(held.sum()))
        drawn = estimates.resample(sums, lambda s: s[:, :1] / s[:, 1:], resamples=resamples, seed=seed)
        (low,), (high,) = drawn.interval(level)
        gap = float(drawn.estimate[0])
        lines.append((name, key, epsilon, losses.mean(), gap, low, high, drawn.n, int(held.sum())))
    names = ["model", "key", "epsilon", "log_loss", "gap", "ci_low", "ci_high", "n", "pairs"]
    return pd.DataFrame(lines, columns=names)


def gaps(table: pd.DataFrame, *, level: float = 0.95) -> list[Estimate]:
    """Findings of `compare`: how much worse each federated model is than the central one, and what central gains."""
    method = "log loss of held-out users, paired, bootstrap by user"
    return [
        Estimate(
            key=f"gap_{row['key']}".replace(".", "_"),
            label=f"Log loss of {row['model']}, more than central training",
            estimate=float(row["gap"]),
            ci_low=float(row["ci_low"]),
            ci_high=float(row["ci_high"]),
            level=level,
            n=int(row["n"]),
            unit="nats",
            method=method,
            reason="" if np.isfinite(row["ci_low"]) else "does not vary between users",
        )
        for row in table[table["key"] != "central"].to_dict("records")
    ]
