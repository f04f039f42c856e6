"""t2ialign rewrite: prompts rewritten for an image generator, or kept with the reason."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io.messages import one_line, printable
from t2ialign.rewriting.arguments import add_rewriter, parse_options
from t2ialign.rewriting.intensity import BYTES_A_WORD, LONG

if TYPE_CHECKING:
    from rich.table import Table

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
  toy                 the rewriter of the toy model, which knows nothing
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
  toy                 the rewriter of the toy model
"""
"""The description of --help, which keeps its lines."""


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
    from t2ialign import api

    flags = {
        "preset": args.preset,
        "url": args.url,
        "intensity": args.intensity,
        "temperature": args.temperature,
    }
    options = parse_options(args.option, "--option")
    if clash := [key for key in ("seed", *flags) if key in options]:
        raise ValueError(f"got {clash[0]} as an option; expected --{clash[0]}; write it so")
    results = api.rewrite(
        [*args.prompt, *([args.prompts] if args.prompts else [])],
        args.rewriter,
        rewriter_options={**{key: value for key, value in flags.items() if value is not None}, **options},
        seed=args.seed,
        tries=args.tries,
        longest=args.longest,
        fit=args.fit,
        output=args.output,
        html=args.html,
        resume=args.resume is not None,
        listener=_Terminal() if args.output is None else None,
    )
    if args.output is not None:
        _show(results, args.output)
    if args.html is not None:
        print(f"prompts and rewrites side by side: {args.html}")


def _show(results: Sequence[Rewritten], output: Path) -> None:
    """The figures of a run that wrote a file."""
    from rich.console import Console

    from t2ialign.rewriting.rewriter import report
    from t2ialign.tasks.rewriting import report_of

    Console(markup=False).print(table(report(results)))
    print(f"{len(results)} prompts in {output}; report in {report_of(output)}")


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


def verdict(result: Rewritten) -> str:
    """The prompt to use, and why the user's is kept if it is."""
    notes = [result.reason if result.used == "original" else result.fallback]
    notes += [f"{loss.what}: {loss.evidence}" for loss in result.lost]
    notes += [f"dropped: {part}" for part in result.dropped]
    remarks = f" ({'; '.join(note for note in notes if note)})" if any(notes) else ""
    return f"{result.used + ':':<9} {result.text}{remarks}"


class _Terminal:
    """Shows each prompt, what is written for it as it is written, and what is used."""

    def __init__(self) -> None:
        self.heard = False

    def prompt(self, prompt: str) -> None:
        """The interface of `tasks.rewriting.Listener`."""
        print(f"prompt:   {printable(prompt)}")

    def attempt(self, number: int) -> None:
        """The same."""
        self.heard = False
        if number:
            print("again:    ", end="")

    def piece(self, text: str) -> None:
        """The same."""
        self.heard = True
        print(printable(text), end="", flush=True)

    def end(self, output: str) -> None:
        """The same."""
        print("" if self.heard else printable(output))

    def result(self, result: Rewritten) -> None:
        """The same."""
        print(f"{printable(verdict(result))}\n")
