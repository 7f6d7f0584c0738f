"""Questions a second through the Q-Former: keys and values once an image, or once a question.

Both are timed in turns in one process, forward and backward.

`python benchmarks/qformer.py [--images 8] [--questions 1 6 12] [--rounds 20]`
"""

import argparse
import time

import numpy as np
import torch

from expvqa_lib.expvqa import load
from expvqa_lib.model import encode
from expvqa_lib.model.forward import query_image
from expvqa_lib.questions import ask_q3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 6, 12], help="questions an image")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(0)
    expvqa = load()
    model, vision = expvqa.model, expvqa.model.config.vision_config
    for each in options.questions:
        n = options.images * each
        text = encode(expvqa.processor, [ask_q3(12)] * n)
        ids, mask = text["qformer_input_ids"], text["qformer_attention_mask"]
        index = torch.arange(options.images).repeat_interleave(each)
        states = torch.randn(
            options.images,
            1 + (vision.image_size // vision.patch_size) ** 2,
            vision.hidden_size,
            requires_grad=True,
        )
        queries = model.query_tokens.expand(n, -1, -1)
        whole = torch.cat([mask.new_ones(queries.shape[:2]), mask], 1)

        def once_a_question(states=states, index=index, ids=ids, whole=whole, queries=queries):
            output = model.qformer(
                input_ids=ids, attention_mask=whole, query_embeds=queries, encoder_hidden_states=states[index]
            )
            return output.last_hidden_state[:, : queries.shape[1]]

        def once_an_image(states=states, index=index, text=text):
            return query_image(model, states, text, index)

        assert torch.allclose(once_a_question(), once_an_image(), atol=1e-4)
        times = {once_an_image: [], once_a_question: []}
        for _ in range(options.rounds):
            for method, taken in times.items():
                began = time.perf_counter()
                method().square().mean().backward(retain_graph=False)
                taken.append(time.perf_counter() - began)
                model.zero_grad()
        ours, theirs = (np.median(taken) for taken in times.values())
        speed = f"{n / ours:6.0f}/s against {n / theirs:6.0f}/s"
        print(f"{each:3d} questions an image: {speed}, ratio {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
