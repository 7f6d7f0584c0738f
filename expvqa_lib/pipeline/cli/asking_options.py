"""Options of the commands that put questions to a model and measure its answers."""


def au(text: str) -> int:
    """Number of an AU that is written as 12 or AU12."""
    return int(text.upper().removeprefix("AU"))


MODEL = {
    "--device": {"metavar": "D", "help": "cpu, cuda or mps (default: what suits the model)"},
    "--dtype": {"metavar": "T", "help": "float32, bfloat16 or float16 (default: what suits the device)"},
    "--bits": {"type": int, "choices": (8, 4), "help": "bits of the language model (needs bitsandbytes)"},
}
LOADED = {
    "--model": {"metavar": "DIR", "help": "model folder or hub name (default: the quick profile's model)"},
    **MODEL,
}
IMAGE_ROOT = {
    "--image-root": {
        "metavar": "DIR",
        "help": "folder that the images are relative to (default: the table's)",
    }
}
TABLE = {
    "--data": {"required": True, "metavar": "FILE", "help": "your face table, .parquet or .csv"},
    **IMAGE_ROOT,
    "--split": {
        "default": "all",
        "choices": ("train", "validation", "test", "all"),
        "help": "faces of the table (default: all)",
    },
}
SKIP = {
    "--skip-unreadable": {
        "action": "store_true",
        "help": "leave out images that cannot be read, and name them (default: stop at the first)",
    }
}
PROFILE = {
    "--profile": {
        "default": "quick",
        "metavar": "NAME",
        "help": "quick: rendered faces (default); full: with the ablations; paper, paper-full: data sets",
    },
    "--data-root": {
        "default": "",
        "metavar": "DIR",
        "help": "with paper: folder of the data sets, each in a folder of its name",
    },
    "--base": {
        "default": "",
        "metavar": "DIR",
        "help": "model folder or hub name to start from (paper: InstructBLIP-Vicuna-7B of the hub)",
    },
}

COST = {
    "--budget": {"type": float, "metavar": "X", "help": "stop before the answers cost more"},
    "--price": {
        "type": float,
        "nargs": 2,
        "default": (0, 0),
        "metavar": ("IN", "OUT"),
        "help": "of a million tokens",
    },
}


ASKING = {
    "ask": (
        "Answer a question about one or more face images.",
        ['ask docs/face.png "How can this person\'s emotion be inferred from their facial actions?"'],
        {
            "images": {"nargs": "+", "metavar": "IMAGE", "help": "image file with one face"},
            "question": {"metavar": "QUESTION", "help": "the question, in quotes, after the images"},
            **LOADED,
            **SKIP,
            "--samples": {
                "type": int,
                "default": 1,
                "metavar": "N",
                "help": "sample N answers (default: the best)",
            },
            "--no-crop": {"action": "store_true", "help": "use the whole image, not the face in it"},
            "--seed": {"type": int, "default": 0, "metavar": "N", "help": "seed of the samples (default: 0)"},
        },
    ),
    "score": (
        "Score every face of pictures, folders and videos: a table with a row a face.",
        [
            "score photos --output photos.csv",
            "score interview.mp4 --fps 5 --output interview.parquet --figures curves",
            'score "clips/*.mp4" photos --ask "Is this a posed smile?" --largest --output all.csv',
        ],
        {
            "paths": {"nargs": "+", "metavar": "PATH", "help": "picture, video, folder or pattern in quotes"},
            "--output": {"required": True, "metavar": "FILE", "help": "the table, .csv or .parquet"},
            **LOADED,
            "--aus": {
                "nargs": "+",
                "type": au,
                "metavar": "AU",
                "help": "such as 1 12 (default: those of the model)",
            },
            "--ask": {
                "nargs": "+",
                "default": (),
                "metavar": "QUESTION",
                "help": "questions, each answered in a column",
            },
            "--no-emotion": {"action": "store_true", "help": "do not ask Q1, from which the emotion is read"},
            "--largest": {"action": "store_true", "help": "the largest face of a picture or frame alone"},
            "--every": {
                "type": int,
                "default": 1,
                "metavar": "N",
                "help": "of a video, each frame of N (default: 1)",
            },
            "--fps": {"type": float, "metavar": "F", "help": "of a video, F frames a second"},
            "--figures": {"metavar": "DIR", "help": "folder for a picture of each person's AUs over time"},
        },
    ),
    "evaluate": (
        "Measure the models of a run, or a model on your own faces: predictions first, then metrics.",
        [
            "evaluate --profile quick",
            "evaluate --model exp-vqa --data faces.parquet --question-types q3 q1 --output mine",
            "evaluate --predictions mine/predictions.parquet --data faces.parquet",
        ],
        {
            **PROFILE,
            "--model": {
                "metavar": "DIR",
                "help": "with --data: model folder or hub name; else a model of the run (default: all)",
            },
            **MODEL,
            "--output": {
                "default": "",
                "metavar": "DIR",
                "help": "folder of runs (default: runs); with --data: predictions/MODEL",
            },
            "--data": {
                "metavar": "PATH",
                "help": "your own face table, .parquet or .csv, or folder of data sets",
            },
            **IMAGE_ROOT,
            "--split": {
                "choices": ("train", "validation", "test", "all"),
                "help": "faces to measure (default: all of a table, the test faces of a folder of data sets)",
            },
            "--question-types": {
                "nargs": "+",
                "choices": ("q1", "q2", "q3"),
                "metavar": "Q",
                "help": "q1, q2, q3 (default: q3)",
            },
            "--in-words": {
                "action": "store_true",
                "help": "answer Q3 in words, too; counts neither yes nor no",
            },
            **SKIP,
            "--predictions": {"metavar": "FILE", "help": "measure these again, without a model"},
            "--card": {
                "action": "store_true",
                "help": "write the results into the model's card (README.md), too",
            },
        },
    ),
    "predict": (
        "Ask any vision-language model about labelled faces: behind OpenAI's API, or of transformers.",
        [
            "predict --api http://127.0.0.1:8000/v1 --model Qwen/Qwen2.5-VL-7B-Instruct --data own.parquet "
            "--output qwen",
            "predict --model HuggingFaceTB/SmolVLM-256M-Instruct --data own.parquet --output smolvlm",
            "evaluate --predictions qwen/predictions.parquet --data own.parquet",
        ],
        {
            "--api": {"metavar": "URL", "help": "the server's address; its key is OPENAI_API_KEY"},
            "--model": {
                "required": True,
                "metavar": "NAME",
                "help": "with --api its name there; else a folder, or name on the hub",
            },
            "--device": MODEL["--device"],
            "--dtype": MODEL["--dtype"],
            **TABLE,
            "--question-types": {
                "nargs": "+",
                "default": ["q3"],
                "choices": ("q1", "q2", "q3"),
                "metavar": "Q",
                "help": "q1, q2, q3 (default: q3)",
            },
            "--samples": {
                "type": int,
                "default": 0,
                "metavar": "N",
                "help": "P(yes) is the share of yes among N sampled answers",
            },
            "--in-words": {
                "action": "store_true",
                "help": "go by the words of the answer, not by log-probabilities",
            },
            "--parallel": {
                "type": int,
                "default": 8,
                "metavar": "N",
                "help": "with --api: requests at a time (default: 8)",
            },
            **COST,
            **SKIP,
            "--output": {"required": True, "metavar": "DIR", "help": "folder of predictions and answers"},
        },
    ),
    "compare": (
        "Set models and other programs side by side, on the faces that all of them have.",
        [
            "compare exp_vqa=predictions.parquet pyfeat=feat.csv openface=clip.csv --data own.parquet "
            "--output comparison"
        ],
        {
            "models": {
                "nargs": "+",
                "metavar": "NAME=FILE",
                "help": "predictions of evaluate, a table of score, or of Py-Feat, OpenFace or LibreFace; of "
                "many files the folder, or a pattern in quotes",
            },
            **TABLE,
            "--images": {
                "default": "",
                "metavar": "PATTERN",
                "help": "of a video's output: its frames below the root, such as '{name}/{frame:06d}.jpg'",
            },
            "--output": {"required": True, "metavar": "DIR", "help": "folder for tables and the forest plot"},
        },
    ),
}
