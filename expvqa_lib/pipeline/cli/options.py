"""Each command: what it does, examples, and its options as `ArgumentParser.add_argument` takes them."""

from .asking_options import ASKING, COST, PROFILE, SKIP

COMMANDS = ASKING | {
    "data": (
        "Check the folder of a data set, read it or your own labels into a face table, or cut the faces out.",
        [
            "data check BP4D --root data/BP4D",
            "data read BP4D --root data/BP4D --output tables/BP4D.parquet",
            "data crop tables/BP4D.parquet --root data/BP4D --output faces",
            "data read own --root photos --labels labels.csv --output own.parquet",
        ],
        {
            "action": {
                "choices": ("check", "read", "crop"),
                "help": "report on the data set; write face table and split; cut out a face table's faces",
            },
            "dataset": {
                "metavar": "DATASET",
                "help": "one of docs/datasets.md; with --labels own, OpenFace, Py-Feat or LibreFace; "
                "crop: face table",
            },
            "--labels": {
                "nargs": "+",
                "metavar": "FILE",
                "help": "your own CSV or Parquet table, or the AU tool's output",
            },
            "--root": {
                "required": True,
                "metavar": "DIR",
                "help": "folder of the data set as it was distributed",
            },
            "--images": {
                "metavar": "PATTERN",
                "help": "of a video's labels: its frames below root, such as '{name}/{frame:06d}.jpg'",
            },
            "--threshold": {
                "type": float,
                "metavar": "X",
                "help": "intensity from which an AU is present (of Py-Feat: probability)",
            },
            "--all": {"action": "store_true", "help": "check: open every image, not a sample of 200"},
            "--output": {
                "metavar": "PATH",
                "help": "read: the face table, .parquet; crop: the folder for the faces",
            },
        },
    ),
    "pairs": (
        "Build question-answer pairs: of a profile, of your own face table, or from the authors' files.",
        [
            "pairs --profile quick --output pairs",
            "pairs --table faces.parquet --rewrite --llm-model gpt-4o-mini --budget 5 --price 0.15 0.6",
            "pairs --table faces.parquet --captioner exp-vqa",
            "pairs --from-json Q1.json Q2.json Q3.json --image-root images --validation 0.02",
        ],
        {
            **PROFILE,
            "--table": {"metavar": "FILE", "help": "your own face table, in place of the profile's faces"},
            "--image-root": {
                "metavar": "DIR",
                "help": "folder that the images of a table or JSON are relative to",
            },
            "--captioner": {
                "metavar": "DIR",
                "help": "trained model that adds pseudo-labels to unlabelled training faces",
            },
            "--output": {
                "default": "pairs",
                "metavar": "DIR",
                "help": "new folder for the pairs (default: pairs)",
            },
            "--from-json": {
                "nargs": "+",
                "metavar": "FILE",
                "help": "JSON lists of the authors, named for Q1, Q2 and Q3",
            },
            **SKIP,
            "--drop-missing": {
                "action": "store_true",
                "help": "of the JSON: leave out rows without an image file",
            },
            "--validation": {
                "type": float,
                "metavar": "X",
                "help": "of the JSON: share of images for validation, say 0.02",
            },
            "--rewrite": {
                "action": "store_true",
                "help": "Q1 and Q2 in a language model's words (OPENAI_API_KEY, _BASE_URL)",
            },
            "--llm-model": {"metavar": "NAME", "help": "name of the language model"},
            **COST,
        },
    ),
    "train": (
        "Fine-tune a model of a profile, or your own on your own pairs (on GPUs: docs/real-weights.md).",
        [
            "train --profile quick --variant exp_vqa_fz --output runs/mine",
            "train --profile paper --pairs pairs --model instructblip --output mine",
        ],
        {
            **PROFILE,
            "--variant": {
                "default": "exp_vqa",
                "metavar": "NAME",
                "help": "exp_vqa trains the vision encoder (default), exp_vqa_fz keeps it frozen; or an "
                "ablation of that, such as q3_only, cat_captioner or without_au12",
            },
            "--output": {
                "default": "",
                "metavar": "DIR",
                "help": "folder of runs (default: runs); with --pairs: new model folder",
            },
            "--pairs": {"metavar": "DIR", "help": "your own pairs, a folder of `expvqa pairs`; with --model"},
            "--model": {"metavar": "DIR", "help": "with --pairs: model folder or hub name to start from"},
            **SKIP,
            "--unseen": {
                "type": int,
                "nargs": "+",
                "default": (),
                "metavar": "AU",
                "help": "with --pairs: AUs without Q3 pairs",
            },
        },
    ),
    "convert": (
        "Convert a LAVIS checkpoint of the authors to a transformers folder, or back.",
        [
            "convert exp_vqa.pth --language-model vicuna-7b --qformer-tokenizer bert-base-uncased "
            "--output exp-vqa",
            "convert exp-vqa --to-lavis --output exp_vqa.pth",
        ],
        {
            "checkpoint": {"metavar": "CHECKPOINT", "help": ".pth; with --to-lavis a transformers folder"},
            "--language-model": {
                "metavar": "DIR",
                "help": "folder of the language model (Vicuna-7B) with its tokenizer",
            },
            "--qformer-tokenizer": {
                "metavar": "DIR",
                "help": "folder of the Q-Former's tokenizer (bert-base-uncased)",
            },
            "--output": {
                "required": True,
                "metavar": "DIR",
                "help": "new folder; with --to-lavis a new .pth",
            },
            "--base": {
                "metavar": "PTH",
                "help": "for Exp-VQA(fz): .pth of InstructBLIP or the EVA ViT, for the vision encoder",
            },
            "--to-lavis": {"action": "store_true", "help": "write a trimmed .pth for the authors' code"},
        },
    ),
    "reproduce": (
        "Run the numbered notebooks in order and write the report.",
        ["reproduce --profile quick --from 04"],
        {
            **PROFILE,
            "--from": {"dest": "start", "default": "", "metavar": "NN", "help": "resume with notebook NN"},
            "--output": {"default": "", "metavar": "DIR", "help": "folder for runs (default: runs)"},
            "--figures": {
                "default": "",
                "metavar": "DIR",
                "help": "folder for figures and tables (default: figures for quick, full; else in the run)",
            },
        },
    ),
}
