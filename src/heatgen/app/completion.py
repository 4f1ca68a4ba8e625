"""Completion of verbs, groups, options and keys in bash: eval "$(heatgen completion)", as in ~/.bashrc."""

import argparse
from pathlib import Path

from hydra._internal.core_plugins.bash_completion import BashCompletion

from heatgen.app import resolvers
from heatgen.app.cli import COMMANDS, VERBS
from heatgen.app.options import SearchPath, groups_of, inner, is_part, options_beside, options_of
from heatgen.runtime.command import NAME, SCRIPTS

FLAGS = ("--help", "--multirun", "--cfg job", "--config-dir")
RUNS = ("run=", "resume=", "init_from=")  # keys that take a run
SCRIPT = """\
_heatgen() {
    local line=${COMP_LINE:0:COMP_POINT} ask=heatgen word known
    [[ $line == python* ]] && ask="${COMP_WORDS[0]} -m heatgen.app"
    [[ $line == python* && ! $line =~ ^python3?\\ +(train|sample|evaluate)\\.py\\  ]] && return
    word=${line##* }
    known=$($ask completion --line "$line" 2> /dev/null)
    COMPREPLY=($(compgen -W "$known" -- "$word"))
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace 2> /dev/null
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then  # bash completes what stands behind the =
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
    fi
}
complete -o default -F _heatgen heatgen python python3
"""


def candidates(line: str) -> list[str]:
    """The words that may stand at the end of a command line; none where bash knows better, as for files."""
    *before, word = line.split(" ")
    before = [one for one in before if one]
    if before[:1] == [NAME]:
        if len(before) == 1:
            return sorted([*VERBS, *COMMANDS])
        verb, rest = before[1], before[2:]
    else:
        verb, rest = Path(before[1]).stem, before[2:]
    if verb not in (VERBS if before[0] == NAME else SCRIPTS):
        return []
    if word.startswith("-"):
        return list(FLAGS)
    runs = runs_of(word) if word.startswith(RUNS) and verb != "pack" else []
    return [*runs, *known(verb, " ".join([*rest, word]))]


def known(verb: str, line: str) -> list[str]:
    """What may be the last word of a verb's arguments: an option of its group, else what Hydra finds of the verb's own."""
    resolvers.register()
    loader, word = SearchPath().loader(), line.rpartition(" ")[2]
    own, (group, equals, name) = groups_of(verb, loader), word.partition("=")
    if equals and group.split("/")[0] in own and options_of(group, loader):
        within = [f"{part}/" for part in inner(group, loader) if not is_part(group, part, loader)]
        return [f"{group}={option}" for option in [*options_beside(group, name, loader), *([] if "/" in name else within)]]
    found = BashCompletion(loader)._query(config_name=verb, line=line)
    whole = [f"{match}=" if match in own else match for match in found if "_target_" not in match]
    heads = {match: match.lstrip("+~").rstrip("=").split("/")[0] for match in whole}
    foreign = [match for match, head in heads.items() if head not in own and "." not in match and options_of(head, loader)]
    return [match for match in whole if match not in foreign and (word or not match.startswith("hydra"))]


def runs_of(word: str) -> list[str]:
    """KEY=latest and KEY=FOLDER for the folders that begin as a word KEY=... does; with / at the end until one is a run."""
    key, _, path = word.partition("=")
    folders = sorted(folder for folder in Path(path).parent.glob(f"{Path(path).name}*") if folder.is_dir())
    if path.endswith("/") or not path:
        folders = sorted(folder for folder in Path(path or "runs").glob("*") if folder.is_dir())
    ends = [f"{folder}" if (folder / "config.yaml").is_file() else f"{folder}/" for folder in folders]
    return [f"{key}={end}" for end in ["latest", *ends]]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog=f"{NAME} completion", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--line", help=argparse.SUPPRESS)  # asked by the script
    line = parser.parse_args().line
    print(SCRIPT if line is None else "\n".join(dict.fromkeys(candidates(line))))
