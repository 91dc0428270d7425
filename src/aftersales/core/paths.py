"""Where the project's own folders are."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from aftersales.core.errors import ConfigError

HOME_VARIABLE = "AFTERSALES_HOME"


def project_root() -> Path:
    """Return the project folder: ``$AFTERSALES_HOME``, else the nearest one at or above the current folder,
    else the checkout this package is installed from.

    Raises:
        ConfigError: no such folder holds ``data/tasks`` and ``training``.
    """
    named = os.environ.get(HOME_VARIABLE)
    here = Path.cwd()
    candidates = [Path(named)] if named else [here, *here.parents, Path(__file__).resolve().parents[3]]
    for folder in candidates:
        if (folder / "data" / "tasks").is_dir() and (folder / "training").is_dir():
            return folder.resolve()
    raise ConfigError(
        f"no aftersales project at {named or here}: run inside a clone of the repository, or set {HOME_VARIABLE} to one"
    )


def outputs() -> Path:
    """Return the folder for everything that commands produce (not tracked by git)."""
    return project_root() / "outputs"


def embedded_encoder() -> Path:
    """Return the folder of the encoder that ships with the project."""
    return project_root() / "data" / "encoder"


def load_script(relative: str) -> ModuleType:
    """Import a script of the project (a recipe, a packaging script) as a module, once.

    Scripts are not part of the library, so that each can be read and run by itself: ``python training/classify.py``.
    """
    root = project_root()
    path = root / relative
    if str(root) not in sys.path:
        sys.path.append(str(root))  # so that scripts beside each other can import each other by their folder
    name = "aftersales_scripts." + relative.removesuffix(".py").replace("/", ".")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{path} does not exist; is {root} a whole clone of the repository?")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
