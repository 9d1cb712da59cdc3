"""Scaling out and in: which machine joins a service and when, and the stages that it passes, each of them undone."""

from orchestrator.scaling.coat import Scaling, Tempo
from orchestrator.scaling.route import passed
from orchestrator.strategies.scaling import plan_scaling
from orchestrator.strategies.services import Candidate, candidates

__all__ = ["Candidate", "Scaling", "Tempo", "candidates", "passed", "plan_scaling"]
