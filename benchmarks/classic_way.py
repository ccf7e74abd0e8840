"""The classic way to search, as users of the format write it around Optuna; ``classic.py`` measures it.

    python benchmarks/classic_way.py SPACE PICTURES OUT [--trials 20] [--time 420] [--seed 0]

Four objectives (loss, F1, accuracy, parameters) and Optuna's default sampler for them, a timeout in seconds, one process,
every trial trained in full, nothing remembered of earlier trials. Pictures are opened by Pillow each time that they are
looked at, in the two workers of a ``DataLoader``. The epoch of the best F1 is kept as ``best.pt``. Of archtuna only the
reading of the space is used, and the building of a network from its rows: the networks are the same as ours.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score
from torch import nn
from torch.utils.data import DataLoader, Dataset

from archtuna import SearchSpace, build

LOADER_WORKERS = 2
CROP_AREA = (0.35, 1.0)  # as in archtuna's `augment: simple`
CROP_RATIO = (3 / 4, 4 / 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# --- data ------------------------------------------------------------------------------------------------


class Pictures(Dataset):
    """A folder of class folders."""

    def __init__(self, folder: Path, size: tuple[int, int], augment: bool) -> None:
        self.classes = sorted(path.name for path in folder.iterdir())
        self.samples = [
            (path, label) for label, name in enumerate(self.classes) for path in sorted((folder / name).iterdir())
        ]
        self.size, self.augment = size, augment
        self.mean, self.std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        image = Image.open(path).convert("RGB")
        image = crop_and_flip(image, self.size) if self.augment else resized(image, self.size)
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
        return torch.from_numpy((pixels - self.mean) / self.std), label


def resized(image: Image.Image, size: tuple[int, int], box: Any = None) -> Image.Image:
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)


def crop_and_flip(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Random resized crop and horizontal flip."""
    area = random.uniform(*CROP_AREA)
    ratio = math.exp(random.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
    width = min(image.width, round(math.sqrt(area * ratio) * image.width))
    height = min(image.height, round(math.sqrt(area / ratio) * image.height))
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    image = resized(image, size, (left, top, left + width, top + height))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


def loader(pictures: Path, part: str, size: tuple[int, int], batch_size: int) -> DataLoader:
    training = part == "train"
    dataset = Pictures(pictures / part, size, augment=training)
    return DataLoader(dataset, batch_size, shuffle=training, num_workers=LOADER_WORKERS)


# --- training --------------------------------------------------------------------------------------------


class Trainer:
    """Trains a model and keeps the weights of its best epoch by F1 in a file."""

    def __init__(self, model: nn.Module, training: DataLoader, validation: DataLoader, best: Path, recipe: Any) -> None:
        self.model, self.training, self.validation, self.best = model, training, validation, best
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.lr, epochs=recipe.epochs, steps_per_epoch=len(training), pct_start=recipe.warmup,
            cycle_momentum=False,
        )  # fmt: skip
        self.epochs = recipe.epochs

    def train(self) -> None:
        best_f1 = -1.0
        for _ in range(self.epochs):
            self.model.train()
            for images, labels in self.training:
                self.optimizer.zero_grad()
                loss = self.criterion(self.model(images), labels)
                loss.backward()
                self.optimizer.step()
                self.scheduler.step()
            _, f1, _ = self.test()
            if f1 > best_f1:
                best_f1 = f1
                torch.save(self.model.state_dict(), self.best)

    def test(self) -> tuple[float, float, float]:
        """Return loss, macro F1 and accuracy on the validation pictures."""
        self.model.eval()
        losses, truth, predicted = 0.0, [], []
        with torch.no_grad():
            for images, labels in self.validation:
                logits = self.model(images)
                losses += self.criterion(logits, labels).item() * len(labels)
                predicted += logits.argmax(1).tolist()
                truth += labels.tolist()
        f1 = f1_score(truth, predicted, average="macro", zero_division=0)
        return losses / len(truth), float(f1), float(accuracy_score(truth, predicted))


# --- search ----------------------------------------------------------------------------------------------


def suggest(trial: optuna.Trial, choice: Any) -> Any:
    if choice.options is not None:
        return trial.suggest_categorical(choice.name, choice.options)
    if choice.kind == "int":
        return trial.suggest_int(choice.name, choice.low, choice.high, step=choice.step or 1)
    return trial.suggest_float(choice.name, choice.low, choice.high, step=choice.step, log=choice.log)


def objective(trial: optuna.Trial, space: SearchSpace, pictures: Path, out: Path) -> tuple[float, float, float, int]:
    candidate = space.resolve(lambda choice: suggest(trial, choice))
    architecture, recipe = candidate.architecture, candidate.recipe
    model = build(architecture)
    best = out / f"trial-{trial.number}" / "best.pt"
    best.parent.mkdir(parents=True)
    training = loader(pictures, "train", architecture.input_size, recipe.batch_size)
    validation = loader(pictures, "val", architecture.input_size, recipe.batch_size)
    trainer = Trainer(model, training, validation, best, recipe)
    trainer.train()
    model.load_state_dict(torch.load(best))
    loss, f1, accuracy = trainer.test()
    return loss, f1, accuracy, sum(parameter.numel() for parameter in model.parameters())


def tell(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Print a trial that has ended as a line of JSON, with the time."""
    state = trial.state.name.lower()
    line = {"at": time.time(), "number": trial.number, "state": state, "values": trial.values}
    print(json.dumps({**line, "decisions": trial.params}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("space", type=Path)
    parser.add_argument("pictures", type=Path, help="a folder with train and val, each a folder of class folders")
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--time", type=float, default=420)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    random.seed(arguments.seed)
    torch.manual_seed(arguments.seed)
    space = SearchSpace.read(arguments.space)
    study = optuna.create_study(
        study_name="classic",
        storage=f"sqlite:///{arguments.out / 'study.db'}",
        directions=["minimize", "maximize", "maximize", "minimize"],
        sampler=optuna.samplers.TPESampler(seed=arguments.seed),  # The default for several objectives, with a seed.
        load_if_exists=True,
    )
    study.optimize(
        lambda trial: objective(trial, space, arguments.pictures, arguments.out),
        n_trials=arguments.trials, timeout=arguments.time, callbacks=[tell],
    )  # fmt: skip


if __name__ == "__main__":
    main()
