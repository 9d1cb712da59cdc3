"""Scaling out and in: which machine joins a service and when, and the stages that it passes, each of them undone."""

from orchestrator.scaling.coat import Scaling, Tempo
from orchestrator.scaling.route import passed
from orchestrator.scaling.service import Candidate, candidates
from orchestrator.scaling.strategy import plan_scaling

__all__ = ["Candidate", "Scaling", "Tempo", "candidates", "passed", "plan_scaling"]
