"""How help looks: examples as they were written, verbs by what one wants, on terminals of any width."""

from __future__ import annotations

import argparse

from lampq.console.commands import GROUPS


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as written and lines up options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_action(self, action: argparse.Action) -> str:
        """One argument; verbs in their groups, below headings."""
        if not isinstance(action, argparse._SubParsersAction):
            return super()._format_action(action)
        verbs = {verb.dest: verb for verb in action._get_subactions()}
        self._indent()
        # Else the longest of them is longer than what help makes room for.
        self._action_max_length += self._indent_increment
        lines = {name: super(Help, self)._format_action(verb) for name, verb in verbs.items()}
        self._dedent()
        groups = [
            f"  {heading}\n{''.join(map(lines.__getitem__, names))}" for heading, names in GROUPS.items()
        ]
        return "\n".join(groups)
