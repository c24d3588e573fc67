"""Record episodes of a suite's scripted experts, or of any other policy, into a data set."""

from typing import Any

from mtorl import InputError


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.envs.collect import collect
    from mtorl.envs.engines import engine
    from mtorl.families import load
    from mtorl.reports.tables import show_store
    from mtorl.runs.collecting import behavior_policy

    load("suites")
    parser = parser_of("collect", collect, skip={"suite", "policy"})
    parser.add_argument(
        "--policy",
        type=str,
        help="Who acts, if not the scripted experts: the folder of a trained run, or the import path of a class or "
        "function that makes a policy of a suite (my_package.MyPolicy); also expert and random.",
    )
    where = parser.add_function_arguments(engine)
    own = ["policy", *parser.add_function_arguments(behavior_policy, skip={"policy"})]
    options, usual = objects(parser, arguments), vars(parser.get_defaults())
    of_policy = {name: options.pop(name) for name in own}
    with engine(**{name: options.pop(name) for name in where}):
        if of_policy["policy"] is None:
            suite = of_policy["suite"]
            _refuse_options_of_policies(of_policy, usual)
            store = collect(suite, **options)
        else:
            policy = behavior_policy(**of_policy)
            store = collect(policy.suite, **options, policy=policy)
    show_store(store)


def _refuse_options_of_policies(given: dict[str, Any], usual: dict[str, Any]) -> None:
    changed = [f"--{name}" for name, value in given.items() if name != "suite" and value != usual[name]]
    if changed:
        raise InputError(
            f"{', '.join(changed)}: for --policy; the recipes of scripted experts have none. Leave it out."
        )
    if given["suite"] is None:
        raise InputError(
            "no suite was named: add --suite MetaWorld --suite.benchmark MT10, or --policy RUN for a run's own suite."
        )
