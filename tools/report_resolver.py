"""Prints how well the resolver's rules find the links that upstream's own sources record: `make report-resolver`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from known_links import derived_links, is_held_out, known_links, score  # after the path that has it


def main() -> None:
    """Print figures as a whole, by part and by rule, then all that is wrong or missed."""
    known, derived = known_links(), derived_links()
    print(f"{'links':<24} {'known':>6} {'right':>6} {'wrong':>6} {'missed':>7} {'precision':>10} {'recall':>8}")
    print_score("all", known)
    print_score("developed on", [id_ for id_ in known if not is_held_out(id_)])
    print_score("held-out providers", [id_ for id_ in known if is_held_out(id_)])
    by_rule = defaultdict(list)
    for id_ in known:
        if id_ in derived:
            by_rule[derived[id_].rule].append(id_)
    print("\nby the weakest rule on the way")
    for rule, ids in sorted(by_rule.items(), key=lambda item: -len(item[1])):
        print_score(rule, ids)
    result = score(known)
    print("\nwrong: served model, answer, known link")
    for id_ in result.wrong:
        print(f"  {id_}  {derived[id_].canonical_id} ({derived[id_].rule})  {known[id_]}")
    print("\nmissed: served model, known link")
    for id_ in result.missed:
        print(f"  {id_}  {known[id_]}")


def print_score(name: str, served_model_ids: Iterable[str]) -> None:
    """Print one line of figures."""
    result = score(served_model_ids)
    print(
        f"{name:<24} {result.known:>6} {result.right:>6} {len(result.wrong):>6} {len(result.missed):>7}"
        f" {result.precision:>10.2%} {result.recall:>8.2%}"
    )


if __name__ == "__main__":
    main()
