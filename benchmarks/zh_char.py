"""What the pre-training of the Chinese character encoder is worth, on few labels.

    python benchmarks/zh_char.py

Test accuracy on the reviews, with 170 and 2,000 labels, of the packaged encoder and of
one of the same sizes with random weights: as features of a logistic regression (a
linear probe of the mean over the tokens) and fine-tuned. Beside them TF-IDF with
logistic regression. Learning rates and strengths are chosen on the validation split,
each from as many; seeds draw the labelled texts, weights and batches.
"""

import functools

import jax
import jax.numpy as jnp
import measuring
import numpy as np
from sklearn.linear_model import LogisticRegression

from expkit import config as config_lib
from expkit import finetuning, finetuning_runs, text

LABELS = {170: 200, 2000: 400}  # and the steps of fine-tuning
RATES = (3e-4, 1e-3, 3e-3)
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
COLUMNS = {
    "model": "model",
    "probe": "linear probe",
    "finetuned": "fine-tuned",
    "rate": "learning rate",
}


def make_lab(num_labels: int, num_steps: int, is_pretrained: bool, options: str):
    config = config_lib.load(
        f"configs/rdrop/reviews.py:num_labels={num_labels},num_steps={num_steps},"
        f"pretrained={str(is_pretrained).lower()}{options}"
    )
    return finetuning_runs.Lab(config)


def mean_states(lab: finetuning_runs.Lab, params, ids: np.ndarray) -> np.ndarray:
    """Mean over the tokens of the last hidden states, [n, width]."""

    @jax.jit
    def states(ids):
        hidden = text.apply_encoder(lab.texts.encoder, params["encoder"], ids, ids != 0)
        return text.mean_pool(hidden, ids != 0)

    size = 64
    padded = np.pad(ids, ((0, -len(ids) % size), (0, 0)))
    parts = [states(padded[i : i + size]) for i in range(0, len(padded), size)]
    return np.concatenate(parts)[: len(ids)]


def probe(lab: finetuning_runs.Lab, seed: int) -> float:
    """Test accuracy of a logistic regression on the encoder as it is."""
    arrays, _ = lab.draw(seed)
    splits = lab.texts.task.splits | {"train": arrays}
    params = lab.initial(seed)
    x = {name: mean_states(lab, params, rows["ids"]) for name, rows in splits.items()}
    mean, scale = x["train"].mean(axis=0), x["train"].std(axis=0) + 1e-6
    x = {name: (rows - mean) / scale for name, rows in x.items()}
    fits = [
        LogisticRegression(C=c, max_iter=1000).fit(x["train"], arrays["label"])
        for c in STRENGTHS
    ]
    best = max(fits, key=lambda f: f.score(x["validation"], _labels(splits)))
    return float(best.score(x["test"], splits["test"]["label"]))


def _labels(splits):
    return splits["validation"]["label"]


def finetune(lab: finetuning_runs.Lab, seeds: range) -> tuple[list[float], float]:
    """Test accuracies, and the learning rate that validates best on the first seed."""
    run = lab.compile(
        lab.texts.task.loss_fn, functools.partial(finetuning.make_adamw, lab.config)
    )

    @functools.cache
    def trained(rate, seed):
        return run({"learning_rate": jnp.float32(rate)}, seed=seed)

    rate = max(
        RATES,
        key=lambda r: lab.evaluate(trained(r, 0), "validation")["validation_accuracy"],
    )
    tests = [lab.evaluate(trained(rate, s), "test")["test_accuracy"] for s in seeds]
    return tests, rate


def measure(num_labels: int, num_steps: int, seeds: range, options: str) -> list[dict]:
    rows = []
    for name, is_pretrained in {"pre-trained": True, "random": False}.items():
        lab = make_lab(num_labels, num_steps, is_pretrained, options)
        tests, rate = finetune(lab, seeds)
        probes = [probe(lab, seed) for seed in seeds]
        rows.append(
            {
                "model": name,
                "probe": float(np.mean(probes)),
                "probe_seeds": probes,
                "finetuned": float(np.mean(tests)),
                "finetuned_seeds": tests,
                "rate": rate,
            }
        )
        print(num_labels, rows[-1], flush=True)
    ngrams = [lab.ngram_accuracy(seed) for seed in seeds]
    rows.append(
        {"model": "TF-IDF + logistic regression", "probe": float(np.mean(ngrams))}
    )
    print(num_labels, rows[-1], flush=True)
    return rows


def main() -> None:
    parser = measuring.parser(__doc__, rounds=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--options", default=",max_length=32", help="of the config")
    arguments = parser.parse_args()
    seeds = range(arguments.seeds)
    tables = {
        f"{labels:,} labels, {steps} steps": measure(
            labels, steps, seeds, arguments.options
        )
        for labels, steps in LABELS.items()
    }
    measuring.save(
        __file__,
        arguments,
        question="What the pre-training of the Chinese encoder is worth.",
        notes=(
            "Test accuracy on the reviews, mean over "
            f"{arguments.seeds} seeds that draw the labelled texts; settings are "
            f"chosen on the validation split. Options: {arguments.options[1:]}; "
            "TF-IDF sees whole texts."
        ),
        columns=dict.fromkeys(tables, COLUMNS),
        tables=tables,
    )


if __name__ == "__main__":
    main()
