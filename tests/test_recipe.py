import pytest

from archtuna.errors import SpecError
from archtuna.recipe import DEFAULT_LR, PARAMETERS, Recipe


def test_values_have_one_spelling_and_one_key():
    assert Recipe(lr=1, epochs=3.0).to_dict() == Recipe(lr=1.0, epochs=3).to_dict()
    assert Recipe(lr=0.1).key == Recipe(lr=0.1).key != Recipe(lr=0.2).key


def test_the_rate_follows_the_optimizer_until_it_is_given():
    assert (Recipe().optimizer, Recipe().lr) == ("adamw", DEFAULT_LR["adamw"])
    assert Recipe().replace(optimizer="sgd").lr == DEFAULT_LR["sgd"]
    assert Recipe(lr=0.1).optimizer == "sgd"
    assert Recipe(lr=0.001, optimizer="adamw").optimizer == "adamw"
    assert Recipe(lr=0.3).replace(optimizer="adamw").lr == 0.3


def test_mistakes_name_the_value():
    with pytest.raises(SpecError, match=r"training.epochs: must be a whole number"):
        Recipe(epochs=0)
    with pytest.raises(SpecError, match=r"training.epcohs: unknown training value\nhint: did you mean 'epochs'"):
        Recipe().replace(epcohs=3)


def test_a_recipe_survives_plain_data_and_every_value_is_documented():
    recipe = Recipe(mixup=0.2, ema=0.99)
    assert Recipe(**recipe.to_dict()) == recipe
    for name in PARAMETERS:
        assert f"{name}:" in (Recipe.__doc__ or "").replace(",", ":"), name
