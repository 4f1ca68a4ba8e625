"""Which way each number of a table is better, for captions."""

import re
from collections.abc import Mapping, Sequence

LOWER, HIGHER, NEITHER = "lower is better", "higher is better", "neither is better by itself"
WAYS = {  # a pattern of names of values -> what is better; the first that fits the whole name, without its condition
    r"coverage_(\d+)": r"best at its own 0.\1",
    r"z_score_(std|rms)": "best at 1",
    r"mse_u0_over_oracle": "1 for an exact draw (0.5 for the exact mean; draws with less are too narrow)",
    r"nearest_over_held_out": "best at 1 (less: copies of training images)",
    r"closer_than_held_out|nearest_is_own": "lower is better (more: copies of training images)",
    r"information_last": "lower is better (above log2 of the number of training images, samples may be copies)",
    r"classifier_(accuracy|auc)": "best at 0.5 (more: a classifier tells samples from data)",
    r"val_loss": "lower is better (between rows of one model alone)",
    r"(fid|kid|crps|energy_score|\w*mse\w*|rmse|spectral_error\w*|nll\w*|l_(first|middle|last)\w*|gap)": LOWER,
    r"(score_error\w*|ks\w*|w1\w*|\w*_gap\w*|identity_error|seconds|nfe)": LOWER,
    r"(precision|recall|inception_score|frame|joint|pixel|bound\w*|effective_draws|factorised)": HIGHER,
    r"\w+": NEITHER,
}
CONDITION = re.compile(r"(_white|_context_\d+|_nats|_classifier|_own)$")


def better(name: str) -> str:
    """What is better of the values of a name, in words."""
    stem = CONDITION.sub("", name)
    for pattern, words in WAYS.items():
        if found := re.fullmatch(pattern, stem):
            return found.expand(words)
    return NEITHER


def caption(columns: Sequence[str], headings: Mapping[str, str]) -> str:
    """What is better, for each of some columns of numbers."""
    by_way: dict[str, list[str]] = {}
    for column in columns:
        by_way.setdefault(better(column), []).append(headings.get(column, column))
    return ". ".join(f"{way[0].upper()}{way[1:]}: {'; '.join(names)}" for way, names in by_way.items()) + "."
