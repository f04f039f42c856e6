"""t2ialign rewrite: prompts said better for an image generator, or kept, and why."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io import locks
from t2ialign.io.messages import one_line, printable
from t2ialign.models.sources import check_model
from t2ialign.rewriting.arguments import add_rewriter, chosen, parse_options
from t2ialign.rewriting.intensity import BYTES_A_WORD, LONG

if TYPE_CHECKING:
    from rich.table import Table

    from t2ialign.rewriting.job import Job
    from t2ialign.rewriting.load import Choice
    from t2ialign.rewriting.rewriter import Rewritten

EXPLAINED = """A language model, or a set of rules, rewrites each prompt into one that a
text-to-image model follows better. A rewrite is used only if it keeps the quoted
texts, numbers and negations of your prompt, and if it fits the text encoder of
--fit. Otherwise the rewriter is asked again; after --tries attempts your prompt is
used as you wrote it, and the reason is reported.

rewriters (--rewriter NAME):
  rules               a set of rules, which needs no model: it spells out counts,
                      looks and places, and adds words for composition, light and
                      medium
  FOLDER or Hub id    a language model of transformers, in safetensors; small
                      instruction models are Qwen/Qwen2.5-0.5B-Instruct and
                      HuggingFaceTB/SmolLM2-1.7B-Instruct (both Apache-2.0)
  NAME with --url     the model of that name on an OpenAI-compatible server
  shapes              the rewriter of the embedded toy model, which knows nothing
                      but coloured shapes

presets (--preset NAME), each for its kind of language model:
  general             any instruction model that has a chat template
  promptenhancer-7b   the released PromptEnhancer-7B
  promptenhancer-32b  the released PromptEnhancer-32B
  magicprompt         GPT-2 models that continue the prompt, such as
                      Gustavosta/MagicPrompt-Stable-Diffusion
  promptist           microsoft/Promptist
  trained             a model that t2ialign train rewrite_sft or rewrite_grpo has
                      fine-tuned
  shapes              the rewriter of the embedded toy model
"""
"""The description of --help, which keeps its lines."""

REPORT = ".json"
"""The report's ending, in place of the output's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.description, parser.formatter_class = EXPLAINED, argparse.RawDescriptionHelpFormatter
    parser.add_argument("prompt", nargs="*", help="A prompt to rewrite. Put each one in quotes.")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="A file of prompts: one per line in .txt, or the column prompt, caption or text of .jsonl, "
        ".json, .csv, .tsv or .parquet.",
    )
    parser.add_argument(
        "--rewriter", default="rules", metavar="NAME", help="The rewriter, as listed above (default: rules)."
    )
    add_rewriter(parser)
    parser.add_argument(
        "--temperature",
        type=float,
        help="The sampling temperature of the first attempt; 0 decodes greedily (default: that of the "
        "preset).",
    )
    parser.add_argument("--seed", type=int, default=0, help="The seed of sampled rewrites (default: 0).")
    parser.add_argument(
        "--tries",
        type=int,
        default=2,
        help="The number of attempts per prompt, after which it is used as you wrote it (default: 2).",
    )
    parser.add_argument(
        "--longest",
        type=int,
        default=LONG,
        metavar="WORDS",
        help=f"The number of words above which a prompt is not rewritten. A word counts once for every "
        f"{BYTES_A_WORD} bytes (default: {LONG}).",
    )
    parser.add_argument(
        "--fit",
        metavar="MODEL",
        help="Shorten rewrites until they fit the text encoder of this text-to-image model, such as the 77 "
        "tokens of Stable Diffusion. MODEL is a diffusers folder, a single file or a Hub id.",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="A setting of the language model; may be repeated. On this machine: tokens (the maximum length "
        "of its output), dtype, batch, chat (variables of its chat template). With --url: tokens, key_env, "
        "timeout, tries, workers, extra.",
    )
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    """What is written, and where."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="The file to write: .txt gets the prompts to use, .jsonl and .parquet get prompts, thoughts, "
        "rewrites and reasons. Without it everything is printed as it is generated.",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="PAGE",
        help="Also write a page that shows each prompt, thought and rewrite side by side, with what was "
        "preserved or lost.",
    )
    parser.add_argument(
        "--resume", choices=("latest",), help="Continue an interrupted run that wrote to --output."
    )


def run(args: argparse.Namespace) -> None:
    """Rewrite to a file with a report beside it, or to the terminal. Raises ValueError for bad arguments."""
    _check(args)
    choice = chosen(
        args.rewriter,
        url=args.url,
        preset=args.preset,
        intensity=args.intensity,
        temperature=args.temperature,
        seed=args.seed,
        options=parse_options(args.option, "--option"),
    )
    prompts = _prompts(args)
    from t2ialign.rewriting.job import Job

    job = Job(choice, args.fit, args.tries, args.longest)
    if args.output is None:
        results = _aloud(job, prompts)
    else:
        with locks.hold_file(args.output):
            _check_output(args)
            results = _to_file(args, job, prompts)
    if args.html is not None:
        from t2ialign.rewriting.page import write

        write(args.html, results, rewriter=job.name)
        print(f"prompts and rewrites side by side: {args.html}")


def _check(args: argparse.Namespace) -> None:
    for name, least in (("seed", 0), ("tries", 1), ("longest", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"got --{name} {getattr(args, name)}; expected at least {least}; raise it")
    if args.html is not None:
        from t2ialign.rewriting.page import check_page

        check_page(args.html)
    if args.fit is not None:
        check_model(args.fit, "--fit")
    if args.output is None:
        if args.resume is not None:
            raise ValueError("got --resume without --output; expected the output of that run; name it")
        return
    from t2ialign.rewriting.files import check_ending

    check_ending(args.output)


def _check_output(args: argparse.Namespace) -> None:
    """Raises ValueError for an output that is the input, or of an earlier run that is not to go on."""
    from t2ialign.rewriting.files import journal_of

    journal, files = journal_of(args.output), (args.output, _report(args.output))
    if args.prompts is not None and args.prompts.resolve() in {file.resolve() for file in (journal, *files)}:
        raise ValueError(f"got --output {args.output} in the place of {args.prompts}; choose another")
    there = [file for file in (*files, journal) if file.exists()]
    if there and args.resume is None:
        raise ValueError(
            f"got {there[0]} from an earlier run; expected none; go on with it by --resume latest, or choose "
            "another --output"
        )
    if there and not journal.exists():
        raise ValueError(f"got {there[0]} without {journal.name}; expected both, to go on; choose another")


def _prompts(args: argparse.Namespace) -> list[str]:
    from t2ialign.data.prompts import read_prompts

    found = [*args.prompt, *(read_prompts(args.prompts) if args.prompts else [])]
    if not found or not all(prompt.strip() for prompt in found):
        raise ValueError(
            "got no prompt, or an empty one; expected some text; quote a prompt or use --prompts"
        )
    return found


def _to_file(args: argparse.Namespace, job: Job, prompts: list[str]) -> list[Rewritten]:
    from rich.console import Console

    from t2ialign.io import atomic
    from t2ialign.rewriting.files import from_row, journal_of, write
    from t2ialign.rewriting.rewriter import report

    (rows,) = job.rows(prompts, [journal_of(args.output)])
    write(args.output, rows)
    results = [from_row(row) for row in rows]
    figures = report(results)
    head = {"rewriter": job.name, "seed": args.seed}
    atomic.write_json(_report(args.output), {**head, **figures})
    Console(markup=False).print(table(figures))
    print(f"{len(rows)} prompts in {args.output}; report in {_report(args.output)}")
    return results


def _report(output: Path) -> Path:
    return output.with_suffix(REPORT)


def table(figures: dict[str, Any]) -> Table:
    """The figures of `rewriter.report`; shares are of the prompts that were asked."""
    from rich.table import Table

    shown = Table(title=f"{figures['asked']} of {figures['prompts']} prompts asked", show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    shares = {"rewritten": figures["rewritten"]}
    shares |= {f"fall-back: {name}": share for name, share in figures["fallbacks"].items()}
    shares |= {f"lost: {kind}": share for kind, share in figures["lost"].items()}
    shares |= {"asked again": figures["tried_again"], "shortened to fit": figures["shortened"]}
    for name, share in shares.items():
        shown.add_row(one_line(name), f"{100 * share:.1f} %")
    shown.add_section()
    for name, number in figures["original"].items():
        shown.add_row(one_line(f"prompt kept: {name}"), str(number))
    shown.add_row("words before, after", f"{figures['words_before']:.1f}, {figures['words_after']:.1f}")
    return shown


def _aloud(job: Job, prompts: Sequence[str]) -> list[Rewritten]:
    """One prompt after the other: its output as it is written, then what is used."""
    from t2ialign.rewriting.rewriter import rewrite

    rewriter, settings, results = _Aloud(job.choice), job.settings(), []
    for prompt in prompts:
        print(f"prompt:   {printable(prompt)}")
        (result,) = rewrite(rewriter, [prompt], **settings)
        print(f"{printable(verdict(result))}\n")
        results.append(result)
    return results


def verdict(result: Rewritten) -> str:
    """The prompt to use, and why the user's is kept if it is."""
    notes = [result.reason if result.used == "original" else result.fallback]
    notes += [f"{loss.what}: {loss.evidence}" for loss in result.lost]
    notes += [f"dropped: {part}" for part in result.dropped]
    said = f" ({'; '.join(note for note in notes if note)})" if any(notes) else ""
    return f"{result.used + ':':<9} {result.text}{said}"


class _Aloud:
    """A rewriter whose outputs are shown as they are written, or when they are there."""

    def __init__(self, choice: Choice) -> None:
        self.rewriter, self.heard = choice.load(self._hear), False

    def write(self, prompts: Sequence[str], *, attempt: int) -> list[str]:
        """What `Rewriter` asks for."""
        if attempt:
            print("again:    ", end="")
        self.heard = False
        outputs = self.rewriter.write(prompts, attempt=attempt)
        print("" if self.heard else printable("\n".join(outputs)))
        return outputs

    def _hear(self, row: int, piece: str) -> None:
        self.heard = True
        print(printable(piece), end="", flush=True)
