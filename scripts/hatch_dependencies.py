"""Gives the wheel the dependencies of requirements/runtime.in, so that they are written once."""

from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class RuntimeDependencies(MetadataHookInterface):
    """Reads `requirements/runtime.in` into `project.dependencies`."""

    def update(self, metadata: dict[str, object]) -> None:
        """Fill in the field that pyproject.toml declares dynamic."""
        lines = (Path(self.root) / "requirements/runtime.in").read_text(encoding="utf-8").splitlines()
        metadata["dependencies"] = [name for line in lines if (name := line.split("#")[0].strip())]
