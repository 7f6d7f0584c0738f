"""Convert a LAVIS checkpoint of the authors to a transformers folder, or back.

examples:
  expvqa convert exp_vqa.pth --language-model vicuna-7b --qformer-tokenizer bert-base-uncased --output exp-vqa
  expvqa convert exp-vqa --to-lavis --output exp_vqa.pth
"""

import argparse

from ...errors import SettingsError
from ...model import convert_checkpoint, export_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `expvqa convert`."""
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help=".pth; with --to-lavis a transformers folder"
    )
    parser.add_argument(
        "--language-model", metavar="DIR", help="folder of the language model (Vicuna-7B) with its tokenizer"
    )
    parser.add_argument(
        "--qformer-tokenizer", metavar="DIR", help="folder of the Q-Former's tokenizer (bert-base-uncased)"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="new folder; with --to-lavis a new .pth"
    )
    parser.add_argument(
        "--base",
        metavar="PTH",
        help="for Exp-VQA(fz): InstructBLIP's .pth or the EVA ViT's, for the vision encoder",
    )
    parser.add_argument("--to-lavis", action="store_true", help="write a trimmed .pth for the authors' code")


def run(options: argparse.Namespace) -> None:
    """Write the converted model and print where it is."""
    if options.to_lavis:
        path = export_checkpoint(options.checkpoint, options.output)
        print(f"{path}: a LAVIS checkpoint without the language model")
        return
    for name in ("language_model", "qformer_tokenizer"):
        if not getattr(options, name):
            raise SettingsError(f"--{name.replace('_', '-')} is missing: the checkpoint does not hold it")
    folder = convert_checkpoint(
        options.checkpoint,
        options.output,
        language_model=options.language_model,
        qformer_tokenizer=options.qformer_tokenizer,
        base=options.base,
    )
    print(f"{folder}: a transformers folder; try expvqa ask --model {folder}")
