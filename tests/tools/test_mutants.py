"""Mutants: one operator changed each, the same for the same seed, and told apart by a room's tests."""

import ast
from pathlib import Path

from tools.house import CodeFile
from tools.mutants import Mutant, is_noticed, mutants_of, sample

CODE = "def is_adult(age: int) -> bool:\n    return age >= 18\n"
TEST = "from people.rule import is_adult\n\n\ndef test_rule() -> None:\n    assert is_adult(18) is {}\n"


def test_every_mutant_is_code_and_differs_in_one_place() -> None:
    file = CodeFile(Path("cpdb/model.py"))
    found = list(mutants_of(file))
    assert found
    for mutant in found:
        assert ast.dump(ast.parse(mutant.text)) != ast.dump(file.tree)
        assert mutant.before in " ".join(file.text.split())


def test_the_same_seed_gives_the_same_mutants() -> None:
    assert sample(3, 5, ("cpdb",)) == sample(3, 5, ("cpdb",))
    assert sample(3, 5, ("cpdb",)) != sample(4, 5, ("cpdb",))


def test_a_mutant_is_noticed_by_a_test_that_asks_and_survives_one_that_does_not(tmp_path: Path) -> None:
    for name in ("people", "tests/people"):
        (tmp_path / name).mkdir(parents=True)
    place, test = tmp_path / "people" / "rule.py", tmp_path / "tests" / "people" / "test_rule.py"
    place.write_text(CODE)
    mutant = Mutant("people/rule.py", 2, "age >= 18", "(age > 18)", CODE.replace(">=", ">"))
    test.write_text(TEST.format("True"))
    assert is_noticed(mutant, tmp_path)
    test.write_text(TEST.format("is_adult(18)"))
    assert not is_noticed(mutant, tmp_path)
    assert place.read_text() == CODE
