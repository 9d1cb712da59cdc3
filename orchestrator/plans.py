"""A plan: what all strategies together want done, in an order of which every prefix is safe, and what they refused."""

from dataclasses import dataclass

from orchestrator.grants import Handled
from orchestrator.steps import Refusal, Step


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they may be carried out, each prefix of which is safe, and refusals.

    `requests`: what becomes of the bandwidth that was asked for.
    """

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    requests: tuple[Handled, ...] = ()
