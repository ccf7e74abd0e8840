import logging
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn import functional

import archtuna.training as training_module
from archtuna.architecture import Architecture, Row
from archtuna.data import Batches, Data, Preprocess
from archtuna.errors import DataError, ShapeError, SpecError, TrialError
from archtuna.model import Network, build
from archtuna.recipe import PARAMETERS, Recipe
from archtuna.training import (
    Epoch,
    class_weights,
    cross_entropy_of,
    evaluate_batches,
    is_out_of_memory,
    learning_rate,
    memory_format_of,
    mix,
    optimizer_of,
    pick_device,
    train,
)

CPU = torch.device("cpu")
CLASSES = 3
FAST = Recipe(epochs=2, batch_size=16, lr=0.05)


class Held:
    """Batches in memory, in the same order every epoch."""

    def __init__(self, x: Tensor, y: Tensor, size: int = 16) -> None:
        self.x, self.y, self.size = x, y, size

    def __len__(self) -> int:
        return math.ceil(len(self.y) / self.size)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.y), self.size):
            yield self.x[start : start + self.size], self.y[start : start + self.size]


def pictures(n: int, *, seed: int = 0, size: int = 16) -> Held:
    """Pictures whose brightest channel is their class."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, CLASSES, (n,), generator=generator)
    x = torch.randn((n, 3, 8, 8), generator=generator)
    x[torch.arange(n), y] += 1.5
    return Held(x, y, size)


def architecture(*, dropout: float = 0.0, classes: int = CLASSES) -> Architecture:
    conv = {"kernel": 3, "stride": 2, "padding": 1, "groups": 1, "activation": "Hardswish"}
    return Architecture(
        (
            Row("Conv", {"channels": 8, **conv}),
            Row("Conv", {"channels": 16, **conv}),
            Row("GlobalAvgPool", {"output_size": 1}),
            Row("Flatten"),
            Row("Dropout", {"p": dropout}),
            Row("Linear", {"features": classes, "activation": None}),
        ),
        3,
        (8, 8),
    )


def network(**values: float) -> Network:
    torch.manual_seed(7)
    return build(architecture(**values))  # type: ignore[arg-type]


def run(recipe: Recipe = FAST, model: nn.Module | None = None, n: int = 64, **values: object) -> list[Epoch]:
    model = model or network()
    return list(train(model, pictures(n), pictures(32, seed=1), recipe, classes=CLASSES, device="cpu", **values))  # type: ignore[arg-type]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns() -> None:
    epochs = run(FAST.replace(epochs=5))
    assert [e.number for e in epochs] == [1, 2, 3, 4, 5]
    assert epochs[-1].metrics["accuracy"] > 0.8
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].metrics.keys() == {"loss", "accuracy", "f1"}
    assert all(e.images == 64 and 0 < e.train_seconds < e.seconds for e in epochs)


def test_metrics_equal_a_plain_evaluation() -> None:
    model = network()
    last = run(model=model)[-1]
    held = pictures(32, seed=1)
    with torch.no_grad():
        logits = model.eval()(held.x)
    predicted = logits.argmax(1)
    assert last.metrics["loss"] == pytest.approx(functional.cross_entropy(logits, held.y).item(), abs=1e-6)
    assert last.metrics["accuracy"] == (predicted == held.y).float().mean().item()
    assert last.metrics["f1"] == pytest.approx(f1_score(held.y, predicted, average="macro", zero_division=0))


@pytest.mark.parametrize("optimizer", PARAMETERS["optimizer"].options)
@pytest.mark.parametrize("schedule", PARAMETERS["schedule"].options)
def test_every_optimizer_learns_with_every_schedule(optimizer: str, schedule: str) -> None:
    epochs = run(Recipe(epochs=4, lr=0.01 if optimizer == "adamw" else 0.05, optimizer=optimizer, schedule=schedule))  # type: ignore[arg-type]
    assert epochs[-1].metrics["loss"] < 1.0


def test_one_step_equals_a_hand_written_one() -> None:
    model, twin = network(), network()
    held = pictures(16)
    recipe = Recipe(epochs=1, batch_size=16, lr=0.1, schedule="constant", warmup=0.0, weight_decay=0.01)
    list(train(model, held, held, recipe, classes=CLASSES, device="cpu"))
    twin.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in twin.parameters() if p.ndim >= 2]
    others = [p for p in twin.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    functional.cross_entropy(twin(held.x.contiguous(memory_format=torch.channels_last)), held.y).backward()
    optimizer.step()
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)


# Repeatability


OPTIONS = {"mixup": 0.4, "ema": 0.9, "label_smoothing": 0.1, "class_weights": "balanced", "clip_norm": 1.0}


def test_a_run_repeats_bit_for_bit_and_leaves_the_callers_randomness_alone() -> None:
    results = []
    for outside in (1, 2):
        model = network(dropout=0.5)
        torch.manual_seed(outside)
        expected = torch.rand(3)
        torch.manual_seed(outside)
        epochs = run(FAST.replace(**OPTIONS), model)
        assert torch.equal(torch.rand(3), expected)
        results.append((state(model), [(e.train_loss, dict(e.metrics)) for e in epochs]))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_another_seed_is_another_run() -> None:
    one, other = (run(FAST.replace(seed=seed), network(dropout=0.5)) for seed in (0, 1))
    assert one[-1].train_loss != other[-1].train_loss


def test_trainings_in_turns_equal_trainings_one_after_the_other() -> None:
    def start(seed: int) -> Iterator[Epoch]:
        model = network(dropout=0.5)
        recipe = FAST.replace(seed=seed, mixup=0.2)
        return train(model, pictures(32), pictures(16, seed=1), recipe, classes=CLASSES, device="cpu")

    apart = [[e.train_loss for e in start(seed)] for seed in (0, 1)]
    turns = list(zip(start(0), start(1), strict=True))
    assert [[e.train_loss for e in run] for run in zip(*turns, strict=True)] == apart


def test_the_caller_may_stop_at_any_epoch() -> None:
    model = network()
    for epoch in train(model, pictures(32), pictures(16), FAST.replace(epochs=9), classes=CLASSES, device="cpu"):
        if epoch.number == 2:
            break
    assert epoch.number == 2
    assert not model.training


# Options


def test_the_average_is_what_is_measured_and_kept() -> None:
    model = network()
    epochs = train(model, pictures(64), pictures(32, seed=1), FAST.replace(ema=0.99), classes=CLASSES, device="cpu")
    first = next(epochs)
    kept = {name: tensor.clone() for name, tensor in first.weights().items()}
    assert kept.keys() == model.state_dict().keys()
    assert not same(kept, model.state_dict())
    twin = network()
    twin.load_state_dict(kept)
    assert evaluate_batches(twin, pictures(32, seed=1), classes=CLASSES, device="cpu") == first.metrics
    last = next(epochs)
    assert next(epochs, None) is None
    assert same(model.state_dict(), last.weights())


def test_the_average_of_batch_norm_statistics_lies_between_the_first_and_the_last() -> None:
    model = network()
    first = next(train(model, pictures(64), pictures(32), FAST.replace(ema=0.9), classes=CLASSES, device="cpu"))
    name = "layers.0.1.running_var"
    assert name in first.weights()
    assert not torch.equal(first.weights()[name], model.state_dict()[name])
    assert torch.equal(first.weights()["layers.0.1.num_batches_tracked"], torch.tensor(4))


def test_without_an_average_the_weights_are_the_models() -> None:
    model = network()
    epoch = run(model=model)[-1]
    assert epoch.weights()["layers.0.0.weight"].data_ptr() == model.state_dict()["layers.0.0.weight"].data_ptr()


def test_class_weights_are_inverse_frequencies() -> None:
    assert class_weights([0, 0, 0, 1], 2).tolist() == [4 / 6, 2.0]
    assert class_weights([0, 2], 3).tolist() == [2 / 3, 0.0, 2 / 3]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_the_run(option: str) -> None:
    plain, changed = run()[-1], run(FAST.replace(**{option: OPTIONS[option]}))[-1]
    assert (plain.train_loss, dict(plain.metrics)) != (changed.train_loss, dict(changed.metrics))
    assert changed.metrics["loss"] < 1.1


def test_clipping_bounds_the_step() -> None:
    model = network()
    before = state(model)
    recipe = Recipe(
        epochs=1, batch_size=64, lr=1.0, momentum=0.0, schedule="constant", warmup=0, clip_norm=0.01, weight_decay=0
    )
    list(train(model, pictures(64, size=64), pictures(16), recipe, classes=CLASSES, device="cpu"))
    moved = sum(((p - before[name]) ** 2).sum().item() for name, p in model.named_parameters()) ** 0.5
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_mixup_blends_pictures_with_their_labels() -> None:
    x = torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    blended, other, share = mix(x, torch.arange(4), 0.5)
    assert other.tolist() == [3, 0, 1, 2]
    assert blended[:, 0, 0, 0].tolist() == pytest.approx([3 - 3 * share, share, 1 + share, 2 + share])
    assert blended.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("alpha", [1e-50, 1e-4, 1e-3])
def test_the_smallest_mixup_blends_the_least(alpha: float) -> None:
    torch.manual_seed(0)
    shares = [mix(torch.zeros(2, 1, 1, 1), torch.arange(2), alpha)[2] for _ in range(400)]
    assert 150 < sum(share > 0.99 for share in shares) < 250
    assert sum(0.01 < share < 0.99 for share in shares) == 0


def test_balanced_weights_take_labels_from_where_they_are_known() -> None:
    class Known(Held):
        labels = np.array([0, 0, 0, 1, 2, 2])

        def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
            assert number > 0, "no picture need be drawn to know labels"
            return super().epoch(number)

    found = cross_entropy_of(Recipe(class_weights="balanced"), Known(*pictures(6).__dict__.values()), CLASSES, CPU)
    assert found.keywords["weight"].tolist() == pytest.approx(class_weights([0, 0, 0, 1, 2, 2], CLASSES).tolist())  # type: ignore[attr-defined]


def test_measuring_takes_smaller_batches_where_memory_does_not_suffice() -> None:
    class Small(nn.Module):
        """Has memory for five pictures."""

        def __init__(self, most: int) -> None:
            super().__init__()
            self.inner, self.most, self.sizes = network(), most, []

        def forward(self, x: Tensor) -> Tensor:
            self.sizes.append(len(x))
            if len(x) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return self.inner(x)

    model = Small(5)
    found = evaluate_batches(model, pictures(32), classes=CLASSES, device="cpu")
    assert found == pytest.approx(evaluate_batches(model.inner, pictures(32), classes=CLASSES, device="cpu"))
    assert model.sizes[:4] == [16, 8, 4, 4]
    with pytest.raises(TrialError, match="out of memory on cpu while measuring"):
        evaluate_batches(Small(0), pictures(32), classes=CLASSES, device="cpu")


def test_an_own_loss_takes_the_place_of_cross_entropy() -> None:
    calls = []

    def own(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(labels))
        return functional.multi_margin_loss(logits, labels)

    assert run(loss=own)[-1].metrics["accuracy"] > 0.5
    assert calls == [16] * 8


# Learning rates


@pytest.mark.parametrize(("warmup", "steps"), [(0.05, 200), (0.3, 100), (0.5, 17), (0.0, 30), (0.07, 20)])
def test_onecycle_equals_torchs(warmup: float, steps: int) -> None:
    recipe = Recipe(lr=0.3, warmup=warmup)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=steps, pct_start=warmup, cycle_momentum=False
    )
    for step in range(steps):
        assert learning_rate(recipe, step, steps) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9, abs=1e-12)
        optimizer.step()
        if step < steps - 1:
            schedule.step()


@pytest.mark.parametrize("steps", [1, 20, 21])
@pytest.mark.parametrize("schedule", PARAMETERS["schedule"].options)
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.9])
def test_rates_lie_between_zero_and_the_top(steps: int, schedule: str, warmup: float) -> None:
    recipe = Recipe(lr=0.1, schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    rates = [learning_rate(recipe, step, steps) for step in range(steps)]
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates)
    assert max(rates) > 0.03


def test_cosine_equals_torchs_after_its_warmup() -> None:
    recipe = Recipe(lr=0.1, schedule="cosine", warmup=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.01 * n for n in range(1, 11)])
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 90)
    for rate in rates[10:]:
        assert rate == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_the_epochs_rate_is_its_last_steps() -> None:
    epochs = run(FAST.replace(schedule="cosine"))
    assert [e.lr for e in epochs] == [learning_rate(FAST.replace(schedule="cosine"), step, 8) for step in (3, 7)]


def test_biases_and_batch_norms_do_not_decay() -> None:
    optimizer = optimizer_of(network(), Recipe(optimizer="sgd", weight_decay=0.1, momentum=0.8))
    decays = {p.ndim >= 2: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {True: 0.1, False: 0.0}
    assert all(group["nesterov"] and group["momentum"] == 0.8 for group in optimizer.param_groups)


def test_adamw_takes_momentum_as_its_first_beta() -> None:
    optimizer = optimizer_of(network(), Recipe(optimizer="adamw", momentum=0.8))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)


# What ends a trial


def test_a_loss_that_is_not_finite_ends_the_trial_at_once() -> None:
    seen = []

    class Poisoned(Held):
        def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
            for x, y in super().epoch(number):
                seen.append(number)
                yield x * (float("nan") if len(seen) == 2 else 1.0), y

    held = pictures(64)
    batches = Poisoned(held.x, held.y)
    with pytest.raises(TrialError, match="training loss became nan in epoch 1") as caught:
        list(train(network(), batches, held, FAST, classes=CLASSES, device="cpu"))
    assert caught.value.reason == "nan"
    assert len(seen) == 2


def test_a_diverging_rate_ends_the_trial() -> None:
    with pytest.raises(TrialError, match=r"loss became (nan|inf)[\s\S]*hint: a lower lr"):
        run(Recipe(epochs=20, lr=1e6, warmup=0.0, schedule="constant"))


def test_a_validation_loss_that_is_not_finite_ends_the_trial() -> None:
    held = pictures(16)
    with pytest.raises(TrialError, match="validation loss became nan in epoch 1"):
        list(train(network(), held, Held(held.x * float("nan"), held.y), FAST, classes=CLASSES, device="cpu"))


class Greedy(nn.Module):
    """Asks for more memory than any machine has."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.expand(1 << 50).clone()


def test_too_little_memory_ends_the_trial_and_leaves_no_state_behind() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with pytest.raises(TrialError, match=r"out of memory on cpu in epoch 1[\s\S]*hint: a smaller batch_size") as caught:
        run(model=Greedy())
    assert caught.value.reason == "out-of-memory"
    assert caught.value.__context__ is None
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_other_errors_pass_through() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("my own bug")

    with pytest.raises(RuntimeError, match="my own bug"):
        run(model=Broken())


def test_a_wrong_number_of_outputs_is_named() -> None:
    with pytest.raises(ShapeError, match=r"the network gives \[5\] values for a picture, and there are 3 classes"):
        run(model=build(architecture(classes=5)))
    with pytest.raises(ShapeError, match=r"gives \[5\] values"):
        evaluate_batches(build(architecture(classes=5)), pictures(8), classes=CLASSES, device="cpu")


def test_no_pictures_are_an_error() -> None:
    empty = Held(torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="no pictures to train on"):
        train(network(), empty, pictures(8), FAST, classes=CLASSES, device="cpu")
    with pytest.raises(DataError, match="no pictures to evaluate"):
        evaluate_batches(network(), empty, classes=CLASSES, device="cpu")


def test_a_network_without_weights_is_an_error() -> None:
    with pytest.raises(ShapeError, match="no weights to train"):
        run(model=nn.Flatten())


@pytest.mark.parametrize(("n", "size"), [(17, 16), (3, 1)])
def test_a_batch_of_a_single_picture_does_not_upset_batch_norm(n: int, size: int) -> None:
    conv = {"channels": 8, "kernel": 1, "stride": 1, "padding": 0, "groups": 1, "activation": "ReLU"}
    head = (Row("Flatten"), Row("Linear", {"features": CLASSES, "activation": None}))
    model = build(Architecture((Row("GlobalAvgPool", {"output_size": 1}), Row("Conv", conv), *head), 3, (8, 8)))
    epochs = list(train(model, pictures(n, size=size), pictures(8), FAST, classes=CLASSES, device="cpu"))
    assert epochs[-1].images == n


# Evaluation, devices, precision


def test_evaluation_keeps_modes_and_does_not_depend_on_layout() -> None:
    model = network()
    model.train()
    model.layers[1].eval()
    before = [m.training for m in model.modules()]
    plain = evaluate_batches(model, pictures(50), classes=CLASSES, device="cpu")
    assert [m.training for m in model.modules()] == before
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert evaluate_batches(model, pictures(50), classes=CLASSES, device="cpu") == plain


def test_channels_last_is_for_networks_with_convolutions() -> None:
    assert memory_format_of(network(), CPU) is torch.channels_last
    assert memory_format_of(network(), CPU, "false") is torch.contiguous_format
    assert memory_format_of(nn.Linear(1, 1), CPU) is torch.contiguous_format
    assert memory_format_of(network(), torch.device("mps")) is torch.contiguous_format
    assert memory_format_of(network(), torch.device("mps"), "true") is torch.channels_last


@pytest.mark.parametrize("wish", PARAMETERS["channels_last"].options)
def test_every_layout_trains(wish: str) -> None:
    model = network()
    assert run(FAST.replace(channels_last=wish), model)[-1].metrics["loss"] < 1.0
    weight = model.state_dict()["layers.1.0.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last) == (wish != "false")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_cpu_trains_in_fp32_with_one_notice(precision: str, caplog: pytest.LogCaptureFixture) -> None:
    training_module._notice.cache_clear()
    with caplog.at_level(logging.WARNING, "archtuna"):
        first, _ = run(FAST.replace(precision=precision)), run(FAST.replace(precision=precision))
    assert [r.getMessage() for r in caplog.records] == [f"precision {precision} gains nothing on cpu: training in fp32"]
    assert first[-1].train_loss == run(FAST.replace(precision="fp32"))[-1].train_loss


def test_auto_precision_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "archtuna"):
        run()
    assert not caplog.records


def test_the_best_present_device_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert pick_device().type == pick_device("auto").type == expected
    assert pick_device("cpu") == pick_device(CPU) == CPU


def test_an_absent_device_is_named_with_the_present_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SpecError, match=r"device: this machine has no device 'cuda'\nhint: present: cpu"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SpecError, match=r"no device 'cuda:3'\nhint: present: cuda, cpu"):
        pick_device("cuda:3")


def test_a_word_that_is_no_device_gets_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"'cud' is not a device\nhint: did you mean 'cuda'"):
        pick_device("cud")
    with pytest.raises(SpecError, match="known: auto, cuda, cuda:1, mps, cpu"):
        pick_device("xyzzy")


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("precision", PARAMETERS["precision"].options)
def test_every_precision_learns_on_cuda(precision: str) -> None:
    recipe = FAST.replace(epochs=4, precision=precision, **OPTIONS)
    epochs = list(train(network(), pictures(64), pictures(32, seed=1), recipe, classes=CLASSES, device="cuda"))
    assert epochs[-1].metrics["loss"] < 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, OPTIONS, {"optimizer": "adamw", "lr": 0.01}])
def test_mixed_precision_learns(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, options: dict[str, object]
) -> None:
    # A CPU can do it, only not faster: so the casting, scaling and clipping are tested where there is no GPU.
    monkeypatch.setattr(training_module, "_autocast_of", lambda precision, device: dtype)
    epochs = run(FAST.replace(epochs=4, **options))
    assert epochs[-1].metrics["loss"] < 0.6


# With real pictures


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Recipe], tuple[Batches, Batches]]:
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path))
    data = Data.open("digits")
    split = data.split(seed=0).subset(0.4, seed=0)
    images = data.images((8, 8), channels=1)
    preprocess = Preprocess.of(images, split.train)

    def batches(recipe: Recipe) -> tuple[Batches, Batches]:
        size = recipe.batch_size
        return (
            Batches(images, split.train, preprocess, batch_size=size, recipe=recipe, seed=recipe.seed),
            Batches(images, split.val, preprocess, batch_size=size),
        )

    return batches


def grey_network() -> Network:
    conv = {"kernel": 3, "stride": 1, "padding": 1, "groups": 1, "activation": "ReLU"}
    head = (Row("Flatten"), Row("Linear", {"features": 10, "activation": None}))
    torch.manual_seed(0)
    pool = Row("MaxPool", {"kernel": 2, "stride": 2, "padding": 0, "dilation": 1, "ceil_mode": False})
    return build(Architecture((Row("Conv", {"channels": 16, **conv}), pool, *head), 1, (8, 8)))


@pytest.mark.parametrize("augment", PARAMETERS["augment"].options)
def test_digits_are_learned_and_the_run_repeats(
    digits: Callable[[Recipe], tuple[Batches, Batches]], augment: str
) -> None:
    recipe = Recipe(epochs=4, batch_size=32, augment=augment, class_weights="balanced", mixup=0.1)  # type: ignore[arg-type]
    runs = [list(train(grey_network(), *digits(recipe), recipe, classes=10, device="cpu")) for _ in range(2)]
    assert [(e.train_loss, e.metrics) for e in runs[0]] == [(e.train_loss, e.metrics) for e in runs[1]]
    assert runs[0][-1].metrics["accuracy"] > (0.85 if augment == "none" else 0.4)
    assert runs[0][-1].images == digits(recipe)[0].count


@pytest.mark.parametrize(
    ("channels", "stride", "groups", "last"),
    [(4, 2, 1, False), (12, 2, 1, False), (16, 2, 1, True), (4, 1, 1, True), (4, 2, 4, True)],
)
def test_a_layout_in_which_the_processors_kernel_overruns_its_memory_is_not_taken(channels, stride, groups, last):
    model = nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 16, 1, stride, groups=groups))
    for wish in ("auto", "true"):
        found = memory_format_of(model, torch.device("cpu"), wish)
        assert (found is torch.channels_last) == last


@pytest.mark.slow
def test_a_network_of_small_strided_convolutions_trains_on_several_threads():
    # In channels last this ended the process; two threads and an odd batch are what it takes.
    code = """
import torch
from torch import nn
from archtuna.recipe import Recipe
from archtuna.training import train
torch.set_num_threads(2)
class Batches:
    def __len__(self):
        return 6
    def epoch(self, number):
        for _ in range(6):
            yield torch.randn(43, 3, 16, 16), torch.randint(0, 4, (43,))
model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 1, 2, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
for epoch in train(model, Batches(), Batches(), Recipe(epochs=5), classes=4, device="cpu"):
    pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- memory ------------------------------------------------------------------------------------------

FAULTS = """
import resource
import torch
from torch import nn
from archtuna import training
from archtuna.recipe import Recipe

class Batches:
    def __len__(self):
        return 8
    def epoch(self, number):
        for _ in range(8):
            yield torch.zeros(32, 3, 64, 64), torch.zeros(32, dtype=torch.int64)

model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
faults = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
for _ in training.train(model, Batches(), Batches(), Recipe(epochs=3), classes=2, device="cpu"):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print((faults[-1] - faults[-2]) // 16)
"""


@pytest.mark.skipif(training_module._glibc is None, reason="the C library is not glibc")
def test_memory_is_kept_from_step_to_step():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    # The largest tensors of this network have 2,000 pages each.
    assert int(done.stdout) < 500


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_batch_in_pieces_makes_the_same_step(weights: str) -> None:
    recipe = replace(FAST, class_weights=weights, epochs=1, ema=0.0, lr=0.1)
    labels = torch.tensor([0] * 12 + [1] * 3 + [2])
    batches = Held(torch.randn((16, 3, 8, 8), generator=torch.Generator().manual_seed(0)), labels)
    steps = []
    for parts in (1, 2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES))
        list(train(model, batches, pictures(32, seed=1), recipe, classes=CLASSES, device="cpu", parts=parts))
        steps.append(state(model))
    for name, tensor in steps[0].items():
        torch.testing.assert_close(tensor, steps[1][name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scaler", [{}, {"scale": 1.0}])
def test_a_training_goes_on_on_a_device_of_another_kind(scaler: dict[str, float]) -> None:
    """A point of a processor has one random state and no scaler; a card has two, and may have one."""
    first = next(iter(train(network(), pictures(64), pictures(32, seed=1), FAST, classes=CLASSES, device="cpu")))
    there = {**first.state(), "device": "cuda", "random": [torch.get_rng_state(), torch.zeros(16, dtype=torch.uint8)]}
    again = list(
        train(network(), pictures(64), pictures(32, seed=1), FAST, classes=CLASSES, device="cpu", resume=there)
    )
    assert [epoch.number for epoch in again] == list(range(2, FAST.epochs + 1))
