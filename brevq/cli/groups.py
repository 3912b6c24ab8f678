"""A group of commands that offers the nearest one where there is none of a name."""

from __future__ import annotations

import click


class NearGroup(click.Group):
    """Commands under one name; an unknown one is told with the command that was probably meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names; wrong usage if there is none.

        Args:
            ctx: where it was called.
            args: what follows the name of the group.
        """
        name = str(args[0])
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            from brevq.inject.near import did_you_mean  # noqa: PLC0415  # needed where something is wrong only

            ctx.fail(f"No such command '{name}'.{did_you_mean(name, known)}")
        return super().resolve_command(ctx, args)
