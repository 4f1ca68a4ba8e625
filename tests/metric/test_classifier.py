"""The small classifier as extractor: that it learns, that it repeats, what it is kept as and what is refused."""

import re
import sys

import pytest
import torch
from feature_toys import CPU, ctx, flat

from heatgen.app import classifier
from heatgen.app.classifier import make_data
from heatgen.check import ConfigError
from heatgen.data.digits import Digits
from heatgen.data.images import Pixels
from heatgen.data.module import DataModule
from heatgen.metric.classifier import FEATURES, Classifier, ConvNet, train, weights_file
from heatgen.metric.fid import FID
from heatgen.metric.inception_score import InceptionScore
from heatgen.runtime.explain import entry


def brightness(n, labelled=True, shape=(1, 4, 4)):
    """Images that are darker or lighter, by class; the same for every split."""
    data = DataModule(shape=list(shape))
    labels = torch.arange(n) % 2
    data.read = lambda split: Pixels(flat(list(255 * labels), shape), labels if labelled else None)
    return data


@pytest.fixture(scope="module")
def state():
    """A classifier of the brightness of (1, 4, 4) images."""
    return train(brightness(256), epochs=30, seed=0)


@pytest.fixture
def stored(tmp_path, state):
    """Its file, where data called `fake` has one."""
    path = weights_file(str(tmp_path), "fake")
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return path


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["classifier", *arguments])
    classifier.main()


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 7, 10), (1, 28, 28), (2, 1, 5)])
def test_a_network_takes_images_of_any_size(shape):
    network = ConvNet(shape, 6)
    u = torch.rand(2, *shape)
    assert network.features(u).shape == (2, FEATURES) and network(u).shape == (2, 6)


@pytest.mark.slow
def test_classes_that_are_easy_are_told_apart(state):
    assert state["accuracy"] == 1 and state["classes"] == 2 and state["shape"] == [1, 4, 4]


@pytest.mark.slow
def test_the_accuracy_is_the_share_of_test_images_that_are_labelled_right():
    data, fair = brightness(20), brightness(20)
    wrong = Pixels(fair.images("test").array, torch.cat([torch.arange(15) % 2, 1 - torch.arange(15, 20) % 2]))
    data.read = lambda split: wrong if split == "test" else fair.images("train")
    assert train(data, epochs=400, seed=0)["accuracy"] == 0.75


def test_the_accuracy_is_measured_without_dropout(monkeypatch):
    seen, forward = [], ConvNet.forward

    def watched(self, u):
        seen.append((self.training, torch.is_grad_enabled()))
        return forward(self, u)

    monkeypatch.setattr(ConvNet, "forward", watched)
    train(brightness(8), epochs=1, seed=0)
    assert seen == [(True, True), (False, False)]


def test_training_repeats_itself_and_depends_on_the_seed():
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(99 + len(runs))
        runs.append(train(brightness(256), epochs=3, seed=seed)["weights"])
    first, again, other = runs
    assert all(torch.equal(again[key], value) for key, value in first.items())
    assert not any(torch.equal(other[key], value) for key, value in first.items())


@pytest.mark.slow
def test_a_label_goes_with_its_own_image_where_images_were_held_out():
    """Digits whose labels are shuffled cannot be learned, so labels that were misplaced would show."""
    assert train(Digits(shape=[1, 8, 8]), epochs=6, seed=0)["accuracy"] > 0.9


def test_the_command_trains_and_stores_what_the_metrics_find(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(classifier, "make_data", lambda name, folder: brightness(64))
    command(monkeypatch, "fake", "--epochs", "3", "--data-dir", str(tmp_path))
    path = tmp_path / "extractors" / "fake.pt"
    assert f"written: {path}" in capsys.readouterr().out
    assert [file.name for file in path.parent.iterdir()] == ["fake.pt"]
    assert Classifier.load(path, "fake", (1, 4, 4), CPU)(flat([7], (1, 4, 4))).shape == (1, FEATURES)


def test_the_command_trains_a_data_set_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "train", lambda data, epochs, seed: {"accuracy": len(data.images("test")) + epochs / 10})
    command(monkeypatch, "digits", "--epochs", "2", "--data-dir", str(tmp_path))
    assert torch.load(tmp_path / "extractors" / "digits.pt")["accuracy"] == 180.2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("digit",), "Error: data=digit is not an option; did you mean digits?"),
        (("ffhq",), "Error: data.path = .* is not a folder"),
        (("digits", "--epochs", "0"), "Error: --epochs must be a whole number of at least 1"),
    ],
)
def test_a_command_that_cannot_be_done_says_why_in_one_sentence(monkeypatch, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as stop:
        entry(lambda: command(monkeypatch, *arguments))
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and len(lines) == 1
    assert re.match(sentence, lines[0])


def test_data_without_labels_are_refused():
    with pytest.raises(ConfigError, match=r"DataModule has no labels here, so no classifier can be trained on it\.$"):
        train(brightness(20, labelled=False), epochs=1, seed=0)


def test_data_by_name_are_what_the_config_says(tmp_path):
    data = make_data("digits", str(tmp_path))
    assert isinstance(data, Digits) and data.data_dir == str(tmp_path) and data.spec.shape == (1, 8, 8)


def test_features_and_probabilities_are_the_networks_own_without_dropout(stored, state):
    images = torch.randint(0, 256, (5, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    network = ConvNet((1, 4, 4), 2).eval()
    network.load_state_dict(state["weights"])
    extract = Classifier.load(stored, "fake", (1, 4, 4), CPU)
    with torch.no_grad():
        assert torch.equal(extract(images), network.features(images / 255))
        probabilities = extract.probabilities(extract(images))
        assert torch.allclose(probabilities, network(images / 255).softmax(1))
    assert torch.allclose(probabilities.sum(1), torch.ones(5)) and not probabilities.requires_grad


def test_the_name_tells_the_data_the_accuracy_and_the_content(stored, state):
    name = Classifier.load(stored, "fake", (1, 4, 4), CPU).name
    assert name.startswith("classifier of fake (test accuracy 1.0000, BLAKE2b ")
    torch.save(state | {"weights": ConvNet((1, 4, 4), 2).state_dict()}, stored)
    assert Classifier.load(stored, "fake", (1, 4, 4), CPU).name != name


def test_a_missing_classifier_says_how_to_train_it(tmp_path):
    path = tmp_path / "my data" / "extractors" / "fake.pt"
    with pytest.raises(ConfigError) as caught:
        Classifier.load(path, "fake", (1, 4, 4), CPU)
    assert str(caught.value) == (
        f"metric.extractor=classifier needs {path}; train it with "
        f"python -m heatgen.app.classifier fake --data-dir '{path.parent.parent}'."
    )


def test_a_classifier_of_images_of_another_shape_is_refused(stored):
    with pytest.raises(
        ConfigError,
        match=r"fake\.pt is for images of shape \[1, 4, 4\], not \[1, 4, 5\]; train it with .*, or use another extractor\.$",
    ):
        Classifier.load(stored, "fake", (1, 4, 5), CPU)


def test_it_serves_the_metrics_and_its_features_are_kept(tmp_path, stored, state, monkeypatch):
    images = {"train": flat(range(0, 250, 10), (1, 4, 4)), "test": flat([0] * 10 + [255] * 10, (1, 4, 4))}
    measured, settings = ctx(tmp_path, **images), {"source": "test", "extractor": "classifier"}
    first = FID(**settings)(measured)
    assert first.values["fid_classifier"] > 0 and first.facts["extractor"].startswith("classifier of fake (")
    assert any("not Inception features" in note for note in first.notes)
    score = InceptionScore(splits=1, **settings)(measured).values["inception_score_classifier"]
    assert 1.5 < score < 2.01  # two classes, about sure

    def forbidden(self, images):
        if len(images) > 1:  # the first one is looked at, whether the file is of it
            raise AssertionError("the extractor was called")
        return true(self, images)

    true = Classifier.__call__
    monkeypatch.setattr(Classifier, "__call__", forbidden)
    assert FID(**settings)(measured).values == first.values
    torch.save(state | {"weights": ConvNet((1, 4, 4), 2).state_dict()}, stored)
    with pytest.raises(AssertionError, match="the extractor was called"):
        FID(**settings)(measured)
