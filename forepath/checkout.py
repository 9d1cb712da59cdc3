"""What only a checkout of the repository has: the real lab and the benches, which are not installed with forepath."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).parent.parent / "tools"


def tool(name: str) -> ModuleType | None:
    """The module `tools.NAME` of the checkout that this package lies in; None where forepath is installed alone."""
    if not (TOOLS / "__init__.py").is_file():
        return None
    root = str(TOOLS.parent)
    if root not in sys.path:
        # Behind everything else: nothing that is installed may be hidden by a folder of the checkout.
        sys.path.append(root)
    return importlib.import_module(f"tools.{name}")
