"""Plain values as YAML that every reader takes for the same values."""

import json
import re
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes texts so that every reader takes them for texts."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """In quotes where it begins like a number: what is one differs between versions of YAML (1e5, 007, 0o7)."""
        style = "'" if re.match(r"[-+.\d]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


def dump_yaml(content: Any, unicode: bool = False) -> str:
    """`content` as YAML, in the order in which it is.

    Args:
        content: Plain values.
        unicode: Write letters beyond ASCII as they are.
    """
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=unicode)


def inline_yaml(content: Any) -> str:
    """`content` in one line of JSON that YAML reads too: it knows no pairs of surrogates, and folds exotic lines."""
    text = json.dumps(content, ensure_ascii=False, default=str)
    return re.sub(r"[^ -~]", lambda letter: f"\\U{ord(letter[0]):08x}", text)
