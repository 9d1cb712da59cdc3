"""The page about the commands says what they say of themselves."""

import inspect

from tools.command_page import PAGE, commands, page_text, parameters, told


def test_the_page_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page_text(text), "run python -m tools.command_page"


def test_every_command_and_all_that_it_takes_stands_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = dict(commands())
    assert {"forepath db status", "forepath request list", "forepath whatif"} <= found.keys()
    for name, command in found.items():
        section = text.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert told(command)[0] in section
        taken = list(parameters(command))
        assert all(f"`{one.words}" in section for one in taken) and all(one.words and one.help for one in taken)
        assert len(taken) == len(set(inspect.signature(command).parameters) - {"settings", "json"}), name
