"""Where PyTorch is not installed everything else works, and who asks for a network by name is told what to do."""

import subprocess
import sys

import pytest

from predictor.data.view import ForecastSpec, Target
from predictor.models import build_models, known_models

SPEC = ForecastSpec((Target(0, 0, 1),), (0.1, 0.5, 0.9))


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_a_network_without_pytorch_is_refused_in_one_line(name, monkeypatch):
    monkeypatch.setattr("predictor.models.deep.find_spec", lambda _name: None)
    assert name in known_models()
    with pytest.raises(ValueError, match=rf"{name} needs PyTorch.*forepath\[deep\]") as refused:
        build_models((name,), SPEC, 1)
    assert "\n" not in str(refused.value)


def test_nobody_who_does_not_train_a_network_loads_pytorch():
    code = "import sys, predictor, predictor.models.deep, predictor.models.deep; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert said.stdout.strip() == "False"
