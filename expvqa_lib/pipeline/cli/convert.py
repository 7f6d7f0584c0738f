"""Convert a LAVIS checkpoint of the authors to a transformers folder, or back.

examples:
  expvqa convert exp_vqa.pth --language-model vicuna-7b --qformer-tokenizer bert-base-uncased --output exp-vqa
  expvqa convert exp-vqa --to-lavis --output exp_vqa.pth
"""

from argparse import Namespace

from ...errors import SettingsError
from ...model import convert_checkpoint, export_checkpoint
from .options import argument

ARGUMENTS = (
    argument("checkpoint", metavar="CHECKPOINT", help=".pth; with --to-lavis a transformers folder"),
    argument(
        "--language-model", metavar="DIR", help="folder of the language model (Vicuna-7B) with its tokenizer"
    ),
    argument(
        "--qformer-tokenizer", metavar="DIR", help="folder of the Q-Former's tokenizer (bert-base-uncased)"
    ),
    argument("--output", required=True, metavar="DIR", help="new folder; with --to-lavis a new .pth"),
    argument(
        "--base",
        metavar="PTH",
        help="for Exp-VQA(fz): .pth of InstructBLIP or the EVA ViT, for the vision encoder",
    ),
    argument("--to-lavis", action="store_true", help="write a trimmed .pth for the authors' code"),
)


def run(options: Namespace) -> None:
    """Write the converted model and print where it is."""
    if options.to_lavis:
        path = export_checkpoint(options.checkpoint, options.output)
        print(f"{path}: a LAVIS checkpoint without the language model")
        return
    if not options.language_model or not options.qformer_tokenizer:
        raise SettingsError("the checkpoint holds neither: give --language-model and --qformer-tokenizer")
    parts = {name: getattr(options, name) for name in ("language_model", "qformer_tokenizer", "base")}
    folder = convert_checkpoint(options.checkpoint, options.output, **parts)
    print(f"{folder}: a transformers folder; try expvqa ask --model {folder}")
