"""The command `expvqa`: ask, data, pairs, train, evaluate, convert, reproduce."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..errors import ExpVQAError, ImageError, SettingsError
from ..training.recipe import PRECISIONS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 for an error that the message explains, 130 when interrupted.

    Usage errors end in argparse's exit status 2.
    """
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except ExpVQAError as error:
        if options.debug:
            raise
        print(f"expvqa: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("expvqa: interrupted", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; building it imports nothing heavy, so that `--help` is quick."""
    parser = argparse.ArgumentParser(
        prog="expvqa",
        description="Ask questions about facial expressions, and reproduce Exp-VQA (Pattern Recognition 168, 2025).",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name, run, summary: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog="example:\n  " + example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
        return sub

    ask = command(
        "ask",
        _ask,
        "answer a question about one or more face images",
        'expvqa ask face.jpg "How can this person\'s emotion be inferred from their facial actions?"',
    )
    ask.add_argument("images", nargs="+", metavar="IMAGE", help="image file with one face")
    ask.add_argument("question", metavar="QUESTION", help="the question, in quotes; it comes last")
    _model(ask, "the tiny model of the quick profile")
    ask.add_argument(
        "--samples",
        type=_positive,
        default=1,
        metavar="N",
        help="sample N answers (default: 1, the best one)",
    )
    ask.add_argument(
        "--no-crop", action="store_true", help="take the whole image instead of the face found in it"
    )
    ask.add_argument("--seed", type=int, default=0, metavar="N", help="seed for sampled answers (default: 0)")

    data = command(
        "data",
        _data,
        "check the folder of a data set, read it or labels of your own into a face table, or cut the faces out",
        "expvqa data check BP4D --root data/BP4D\n  expvqa data read BP4D --root data/BP4D --output tables/BP4D.parquet\n"
        "  expvqa data crop tables/BP4D.parquet --root data/BP4D --output faces\n"
        "  expvqa data read own --root photos --labels labels.csv --output own.parquet",
    )
    data.add_argument(
        "action",
        choices=("check", "read", "crop"),
        help="say all that was found; write the face table and its split; cut the faces out",
    )
    data.add_argument(
        "dataset",
        metavar="DATASET",
        help="BP4D, DISFA, GFT, RAF-AU, EmotioNet, AffectNet, RAF-DB, RAF-DB-basic or FaceME; with --labels own, OpenFace, Py-Feat or "
        "LibreFace; for crop a face table, .parquet",
    )
    data.add_argument(
        "--labels",
        nargs="+",
        metavar="FILE",
        help="a CSV or Parquet table of your own, or what the program named wrote",
    )
    data.add_argument(
        "--root", required=True, metavar="DIR", help="folder that holds the data set as it was distributed"
    )
    data.add_argument(
        "--output",
        metavar="PATH",
        help="read: the face table, .parquet, beside which a split is followed; crop: folder for faces and table",
    )

    pairs = command(
        "pairs",
        _pairs,
        "synthesize the question and answer pairs of a profile, or of a face table of your own, or read released ones",
        "expvqa pairs --profile quick --output pairs\n"
        "  expvqa pairs --table faces.parquet --captioner exp-vqa --rewrite --llm-model gpt-4o-mini --budget 5 --price 0.15 0.6\n"
        "  expvqa pairs --from-json Q1.json Q2.json Q3.json --image-root images --validation 0.02 --output pairs",
    )
    _profile(pairs)
    pairs.add_argument(
        "--table", metavar="FILE", help="Parquet face table of your own, in place of the profile's faces"
    )
    pairs.add_argument(
        "--image-root",
        metavar="DIR",
        help="with --table or --from-json: folder that the images are relative to",
    )
    pairs.add_argument(
        "--captioner",
        metavar="DIR",
        help="trained model that adds what nobody labelled, marked as pseudo, for training",
    )
    released = pairs.add_argument_group("the authors' pair files, in place of a profile's pairs")
    released.add_argument(
        "--from-json",
        nargs="+",
        metavar="FILE",
        help="JSON lists with image, text_input, text_output (image_id, area)",
    )
    released.add_argument(
        "--question-types",
        nargs="+",
        metavar="Q",
        help="Q1, Q2 or Q3 of each file (default: by its name, or by row)",
    )
    released.add_argument(
        "--drop-missing", action="store_true", help="leave out rows whose image is not there"
    )
    released.add_argument(
        "--validation",
        type=float,
        metavar="X",
        help="share of the images for validation, 0.02 say (default: none)",
    )
    pairs.add_argument(
        "--output",
        default="pairs",
        metavar="DIR",
        help="new folder for the pairs, a Hugging Face data set (default: pairs)",
    )
    llm = pairs.add_argument_group("Q1 and Q2 in a language model's words (OPENAI_API_KEY, OPENAI_BASE_URL)")
    llm.add_argument(
        "--rewrite", action="store_true", help="ask for them; what is asked is kept in OUTPUT-answers.sqlite"
    )
    llm.add_argument("--llm-model", metavar="NAME", help="model to ask (default: EXPVQA_LLM_MODEL)")
    llm.add_argument(
        "--llm-url",
        metavar="URL",
        help="server that speaks OpenAI's API (default: OPENAI_BASE_URL, or OpenAI's own)",
    )
    llm.add_argument(
        "--budget",
        type=float,
        metavar="X",
        help="stop before this run costs more, in the currency of --price",
    )
    llm.add_argument(
        "--price", type=float, nargs=2, metavar=("IN", "OUT"), help="of a million tokens in and out"
    )
    llm.add_argument("--max-requests", type=_positive, metavar="N", help="stop after N requests")

    train = command(
        "train",
        _train,
        "fine-tune a model",
        "expvqa train --profile quick --variant exp_vqa_fz --output runs/mine\n"
        "  accelerate launch --config_file expvqa_lib/assets/accelerate/fsdp.yaml -m expvqa_lib train --profile paper "
        "--pairs pairs --model instructblip --output mine",
    )
    _profile(train)
    train.add_argument(
        "--variant",
        default="exp_vqa",
        metavar="NAME",
        help="exp_vqa trains the vision encoder (default), exp_vqa_fz keeps it frozen; or an ablation of that, such as q3_only, "
        "cat_captioner or without_au12",
    )
    train.add_argument(
        "--pairs",
        metavar="DIR",
        help="pairs of your own, a folder of `expvqa pairs` (default: the profile's)",
    )
    train.add_argument("--model", metavar="DIR", help="with --pairs: model folder or hub name to start from")
    own = train.add_argument_group("with --pairs, in place of the profile's recipe")
    own.add_argument(
        "--precision", choices=PRECISIONS, help="of the arithmetic and of frozen parts (paper: float16)"
    )
    own.add_argument("--images", type=_positive, metavar="N", help="images a step and process (paper: 30)")
    own.add_argument("--pairs-per-image", type=_positive, metavar="N", help="which share its pass (paper: 1)")
    own.add_argument("--accumulate", type=_positive, metavar="N", help="batches a step (paper: 1)")
    own.add_argument("--epochs", type=_positive, metavar="N", help="(paper: 6)")
    own.add_argument("--max-words", type=_positive, metavar="N", help="cut texts to N words (paper: 50)")
    own.add_argument(
        "--unseen",
        type=_positive,
        nargs="+",
        default=[],
        metavar="AU",
        help="action units that no Q3 pair shall ask about",
    )
    own.add_argument(
        "--no-augment",
        action="store_true",
        help="images as they are; a frozen encoder then sees each once only",
    )
    train.add_argument(
        "--output",
        metavar="DIR",
        help="folder of the run (default: runs/PROFILE); with --pairs: new folder of the model",
    )

    evaluate = command(
        "evaluate",
        _evaluate,
        "measure the models of a run, or a model on a face table of your own: predictions first, then metrics",
        "expvqa evaluate --profile quick\n  expvqa evaluate --model exp-vqa --data faces.parquet --questions q3 q1 --output mine\n"
        "  expvqa evaluate --predictions mine/predictions.parquet --data faces.parquet",
    )
    _profile(evaluate)
    _model(evaluate, "all models of the run; exp_vqa, say, for the rows of one of them")
    evaluate.add_argument(
        "--output",
        metavar="DIR",
        help="folder of the run (default: runs/PROFILE); with --data: predictions/MODEL",
    )
    own = evaluate.add_argument_group(
        "on faces of your own; a run that was stopped goes on, `torchrun` shares it"
    )
    own.add_argument(
        "--data", metavar="PATH", help="face table, .parquet or .csv, or folder that holds data sets"
    )
    own.add_argument(
        "--image-root", metavar="DIR", help="folder that the images are relative to (default: the table's)"
    )
    own.add_argument(
        "--questions", nargs="+", choices=("q1", "q2", "q3"), metavar="Q", help="q1, q2, q3 (default: q3)"
    )
    own.add_argument("--wordings", nargs="+", type=int, metavar="N", help="0, 1, 2 (default: 0)")
    own.add_argument(
        "--in-words",
        action="store_true",
        help="have Q3 answered in words, too: slower, and counts what is neither yes nor no",
    )
    own.add_argument("--split", metavar="S", help="train, validation or test (default: test)")
    own.add_argument("--predictions", metavar="FILE", help="measure these again, without a model")

    convert = command(
        "convert",
        _convert,
        "convert the authors' LAVIS-format checkpoint to a transformers folder, or back",
        "expvqa convert exp_vqa.pth --language-model vicuna-7b --qformer-tokenizer bert-base-uncased --output exp-vqa\n"
        "  expvqa convert exp-vqa --to-lavis --output exp_vqa.pth",
    )
    convert.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="LAVIS-format .pth; with --to-lavis a transformers folder"
    )
    convert.add_argument(
        "--language-model", metavar="DIR", help="folder of the language model (Vicuna-7B) with its tokenizer"
    )
    convert.add_argument(
        "--qformer-tokenizer", metavar="DIR", help="folder of the Q-Former's tokenizer (bert-base-uncased)"
    )
    convert.add_argument(
        "--output", required=True, metavar="DIR", help="new folder; with --to-lavis a new .pth"
    )
    convert.add_argument(
        "--base",
        metavar="PTH",
        help="for Exp-VQA(fz): InstructBLIP's .pth or the EVA ViT's, for the vision encoder",
    )
    convert.add_argument(
        "--vision-heads",
        type=_positive,
        metavar="N",
        help="attention heads of the vision encoder (default: 16)",
    )
    convert.add_argument(
        "--qformer-heads", type=_positive, metavar="N", help="attention heads of the Q-Former (default: 12)"
    )
    convert.add_argument(
        "--patch-size", type=_positive, metavar="N", help="pixels; read from the tensors, given to be checked"
    )
    convert.add_argument(
        "--to-lavis", action="store_true", help="the other way: write a trimmed .pth for the authors' code"
    )

    reproduce = command(
        "reproduce",
        _reproduce,
        "run the numbered notebooks and write the report",
        "expvqa reproduce --profile quick --from 04",
    )
    _profile(reproduce)
    reproduce.add_argument(
        "--from", dest="start", metavar="NN", help="start with notebook NN, keeping the ones before it"
    )
    reproduce.add_argument("--only", nargs="+", metavar="NN", help="run these notebooks only")
    reproduce.add_argument("--output", default="runs", metavar="DIR", help="folder for runs (default: runs)")
    reproduce.add_argument(
        "--figures", default="figures", metavar="DIR", help="folder for figures and tables (default: figures)"
    )
    return parser


def _model(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--model", metavar="DIR", help=f"model folder or hub name (default: {default})")
    parser.add_argument(
        "--device",
        metavar="D",
        help="cpu, cuda, mps (default: an accelerator for large models, else the CPU)",
    )
    parser.add_argument(
        "--dtype", metavar="T", help="float32, bfloat16 or float16 (default: what suits the device)"
    )
    parser.add_argument(
        "--bits",
        type=int,
        choices=(8, 4),
        help="hold the language model in so many bits (needs bitsandbytes)",
    )


def _profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        default="quick",
        metavar="NAME",
        help="quick (default): drawn faces; paper: the paper's own scale; full, paper-full: with ablations",
    )
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="with paper: folder that holds the data sets, each in a folder of its name",
    )
    parser.add_argument(
        "--base",
        metavar="DIR",
        help="model folder or hub name to start from (paper: InstructBLIP-Vicuna-7B of the hub)",
    )


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return number


def _ask(options: argparse.Namespace) -> None:
    for image in options.images:  # before the model loads, which takes seconds
        if not Path(image).is_file():
            raise ImageError(
                f"{image}: no such image file; give image files first and the question last, in quotes"
            )
    model = _load(options)
    if notice := getattr(model, "notice", None):
        print(f"expvqa: {notice}", file=sys.stderr)
    warnings.showwarning = lambda message, *_: print(f"expvqa: {message}", file=sys.stderr)
    images = options.images[0] if len(options.images) == 1 else options.images
    answers = model.ask(
        images, options.question, samples=options.samples, crop=not options.no_crop, seed=options.seed
    )
    if isinstance(answers, str):
        print(answers)
    elif isinstance(answers, list):
        print("\n".join(answers))
    else:
        for row in answers.itertuples():
            print(f"{row.image}\t{row.answer}")


def _data(options: argparse.Namespace) -> None:
    from .commands import data

    data(options)


def _pairs(options: argparse.Namespace) -> None:
    from .commands import pairs

    pairs(options)


def _load(options: argparse.Namespace):
    import expvqa_lib as expvqa

    return expvqa.load(options.model, device=options.device, dtype=options.dtype, bits=options.bits)


def _train(options: argparse.Namespace) -> None:
    from .commands import train

    train(options)


def _evaluate(options: argparse.Namespace) -> None:
    from .commands import evaluate

    evaluate(options, _load)


def _convert(options: argparse.Namespace) -> None:
    from ..model import convert_checkpoint, export_checkpoint

    if options.to_lavis:
        print(
            f"{export_checkpoint(options.checkpoint, options.output)}: a LAVIS-format checkpoint without the language model"
        )
        return
    for option in ("language_model", "qformer_tokenizer"):
        if not getattr(options, option):
            raise SettingsError(f"--{option.replace('_', '-')} is missing: the checkpoint does not hold it")
    names = ("language_model", "qformer_tokenizer", "base", "vision_heads", "qformer_heads", "patch_size")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    folder = convert_checkpoint(options.checkpoint, options.output, **given)
    print(f"{folder}: a transformers folder; try expvqa ask --model {folder}")


def _reproduce(options: argparse.Namespace) -> None:
    from .reproduce import reproduce

    report = reproduce(
        options.profile,
        data_root=options.data_root,
        base=options.base,
        start=options.start,
        output=options.output,
        figures=options.figures,
        only=options.only,
    )
    print(f"report: {report}")
