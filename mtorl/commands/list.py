"""What can be chosen: agents, networks, heads, balancers, sharing, groupers, trackers, suites."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.families import FAMILIES, members
    from mtorl.reports.tables import show_members

    def listing() -> None:
        """Lists what can be named on the command line. `--balancer.help NAME` and the like show a member's options."""

    parser = parser_of("list", listing)
    parser.add_argument("family", choices=list(FAMILIES), help="Which family.")
    family = objects(parser, arguments)["family"]
    show_members(family, members(family))
