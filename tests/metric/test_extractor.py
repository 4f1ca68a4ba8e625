"""What turns images into features: Inception and where it is found, TorchScript files, and what each is called."""

import http.server
import io
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import cleanfid.downloads_helper
import numpy as np
import pytest
import torch
from feature_toys import CPU, flat, script
from PIL import Image
from torch import nn

from heatgen.check import ConfigError
from heatgen.metric.classifier import Classifier
from heatgen.metric.extractor import FILE, Inception, Script, content_hash, find_inception, make_extractor


@pytest.fixture
def weights(tmp_path):
    """A stand-in for Inception: 12 means of (x - 128) / 128, over the quarters of each channel."""
    return str(script(tmp_path / "stand-in.pt", nn.AdaptiveAvgPool2d(2), nn.Flatten()))


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (32, 32), (299, 40), (300, 513)])
def test_images_are_resized_as_clean_fid_does_and_not_rounded(size, tmp_path):
    image = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    extract = Inception(script(tmp_path / "net.pt", nn.Flatten()), CPU)
    channels = [Image.fromarray(c.numpy().astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC) for c in image[0]]
    expected = (np.stack([np.asarray(c).clip(0, 255) for c in channels]) - 128) / 128
    assert np.abs(extract(image).numpy().reshape(3, 299, 299) - expected).max() < 1e-6


def test_large_images_are_averaged_and_not_sampled(tmp_path, weights):
    board = (255 * (torch.arange(600)[:, None] + torch.arange(600)) % 2 * 255).to(torch.uint8).expand(1, 1, -1, -1)
    assert (Inception(Path(weights), CPU)(board) * 128 + 128 - 127.5).abs().max() < 1


def test_grey_images_have_the_features_of_their_three_equal_channels(weights):
    grey = torch.randint(0, 256, (3, 1, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    extract = Inception(Path(weights), CPU)
    assert torch.equal(extract(grey), extract(grey.expand(-1, 3, -1, -1)))
    assert torch.allclose(extract(flat([0, 128, 192])), torch.tensor([-1, 0, 0.5])[:, None].expand(-1, 12), atol=1e-6)


def test_layers_are_found_one_module_deeper_too(tmp_path):
    inner = nn.Sequential(OrderedDict(layers=nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())))
    torch.jit.save(torch.jit.script(nn.Sequential(OrderedDict(net=inner))), str(tmp_path / "deeper.pt"))
    assert Inception(tmp_path / "deeper.pt", CPU)(flat([192]))[0, 0] == 0.5


def test_a_foreign_torchscript_and_a_foreign_file_are_refused(tmp_path):
    script(tmp_path / "foreign.pt", nn.Flatten(), name="other")
    with pytest.raises(ConfigError, match=r"foreign\.pt has no sub-module `layers`"):
        Inception(tmp_path / "foreign.pt", CPU)
    (tmp_path / "broken.pt").write_bytes((tmp_path / "foreign.pt").read_bytes()[:500])
    with pytest.raises(ConfigError, match=r"broken\.pt is not a whole TorchScript file"):
        Inception(tmp_path / "broken.pt", CPU)


# finding the network ----------------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without the Inception file and without a network; returns data_dir."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: (_ for _ in ()).throw(URLError("no network")))
    return tmp_path / "data"


def test_a_missing_network_says_in_one_sentence_where_to_put_it(nowhere):
    with pytest.raises(ConfigError) as caught:
        find_inception(None, str(nowhere))
    assert str(caught.value) == (
        f"The Inception network is not at {nowhere / FILE} and cannot be downloaded (<urlopen error no network>); "
        f"put {FILE} there, or give its place with metric.weights=FILE."
    )
    assert list(nowhere.iterdir()) == []
    with pytest.raises(ConfigError, match=r"metric\.weights = .*gone\.pt is not a file"):
        find_inception(str(nowhere / "gone.pt"), str(nowhere))


def test_the_network_is_downloaded_once_and_a_broken_download_leaves_nothing(nowhere, monkeypatch):
    class Broken(io.BytesIO):
        def read(self, *size):
            raise ConnectionResetError("reset")

    class Whole(io.BytesIO):
        headers = {"Content-Length": "7"}

    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: Broken())
    with pytest.raises(ConfigError, match="reset"):
        find_inception(None, str(nowhere))
    assert list(nowhere.iterdir()) == []
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: Whole(b"network"))
    assert find_inception(None, str(nowhere)) == nowhere / FILE
    monkeypatch.undo()
    assert find_inception(None, str(nowhere)).read_bytes() == b"network"


def test_a_download_that_is_cut_short_is_not_kept(tmp_path, monkeypatch):
    class Half(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(bytes(500))

        def log_message(self, *args):
            pass

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Half) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setattr(cleanfid.downloads_helper, "inception_url", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(ConfigError, match="cannot be downloaded"):
            find_inception(None, str(tmp_path / "data"))
    assert list((tmp_path / "data").iterdir()) == []


# what is asked for ------------------------------------------------------------------------------------------------------


def make(extractor, folder, weights=None):
    return make_extractor(extractor, weights, str(folder), "fake", (1, 5, 6), CPU)


def test_the_extractor_is_the_one_that_was_asked_for(tmp_path, weights):
    assert isinstance(make("inception", tmp_path, weights), Inception)
    assert isinstance(make(weights, tmp_path), Script)
    with pytest.raises(ConfigError, match=r"metric\.extractor=classifier needs .*; train it with .* fake --data-dir .*\.$"):
        make("classifier", tmp_path)
    with pytest.raises(ConfigError, match=r"must be inception, classifier or a TorchScript file, not inceptoin\.$"):
        make("inceptoin", tmp_path)


def test_a_file_that_is_no_network_is_refused_as_an_extractor(tmp_path):
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ConfigError, match=r"text\.pt is not a whole TorchScript file"):
        make(str(tmp_path / "text.pt"), tmp_path)


def test_a_script_sees_fractions_of_bytes_at_the_images_own_size_and_its_output_is_flattened(tmp_path):
    images = torch.arange(60, dtype=torch.uint8).reshape(2, 1, 5, 6)
    extract = Script(script(tmp_path / "net.pt", nn.Identity()), CPU)
    assert torch.equal(extract(images), images.flatten(1) / 255)
    assert extract.probabilities(extract(images)) is None


def test_the_name_of_a_script_tells_its_content(tmp_path):
    (tmp_path / "other").mkdir()
    paths = [script(folder / "a.pt", nn.Linear(6, 2)) for folder in (tmp_path, tmp_path / "other")]
    names = [Script(path, CPU).name for path in paths]
    assert names[0] != names[1] and all(name.startswith("TorchScript a.pt, BLAKE2b ") for name in names)
    assert content_hash(paths[0]) in names[0] and names[0] == Script(paths[0], CPU).name


def test_a_script_is_in_evaluation_mode_whatever_was_saved(tmp_path):
    path = script(tmp_path / "net.pt", nn.Dropout(0.5))
    assert torch.equal(Script(path, CPU)(flat([255])), torch.ones(1, 30))


def test_inception_knows_classes_where_the_file_has_its_output_layer(tmp_path, weights):
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    network = nn.Sequential(OrderedDict(layers=layers, output=nn.Linear(12, 3)))
    torch.jit.save(torch.jit.script(network), str(tmp_path / "classes.pt"))
    extract, features = (
        Inception(tmp_path / "classes.pt", CPU),
        torch.randn(5, 12, generator=torch.Generator().manual_seed(0)),
    )
    assert torch.allclose(extract.probabilities(features), (features @ network.output.weight.mT).softmax(1))
    assert Inception(Path(weights), CPU).probabilities(features) is None


def test_a_classifier_is_looked_for_beside_the_data(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Classifier, "load", classmethod(lambda cls, *arguments: seen.append(arguments)))
    make("classifier", tmp_path)
    assert seen == [(tmp_path / "extractors" / "fake.pt", "fake", (1, 5, 6), CPU)]


@pytest.mark.parametrize(
    "output", [nn.Linear(12, 3), nn.Sequential(nn.Linear(12, 3), nn.Softmax(1)), nn.Sequential(nn.Linear(12, 3), nn.ReLU())]
)
def test_the_last_bias_is_left_out_whatever_stands_behind_it_or_the_score_is_refused(tmp_path, output):
    features = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    weight = next(iter(output.parameters())).detach()
    torch.jit.save(torch.jit.script(nn.Sequential(OrderedDict(layers=nn.Flatten(), output=output))), str(tmp_path / "c.pt"))
    extract = Inception(tmp_path / "c.pt", CPU)
    if "ReLU" in str(output):
        with pytest.raises(ConfigError, match=r"`output` of .*c\.pt is no linear layer of 12 features.* its bias"):
            extract.probabilities(features)
    else:
        assert torch.allclose(extract.probabilities(features), (features @ weight.mT).softmax(1), atol=1e-6)


class Tuple(nn.Module):
    def forward(self, x):
        return x, x


class Two(nn.Module):
    def forward(self, x, y):
        return x + y


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Tuple(), "gives a tuple; give a network that returns one tensor"),
        (Two(), "missing value for argument 'y'.*give a network that takes images alone"),
        (nn.Sequential(nn.Flatten(0)), "for 1 image; give a network that returns real features"),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), "fails on .*give a network that takes images alone"),
    ],
)
def test_a_script_that_gives_no_features_is_refused_in_one_sentence(tmp_path, module, words):
    torch.jit.save(torch.jit.script(module), str(tmp_path / "odd.pt"))
    with pytest.raises(ConfigError, match=rf"odd\.pt .*{words}") as caught:
        Script(tmp_path / "odd.pt", CPU)(flat([1, 2]))
    assert "\n" not in str(caught.value)


def test_features_are_of_float32_under_any_autocast(tmp_path):
    images = torch.randint(0, 256, (4, 1, 5, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    extract = Script(script(tmp_path / "net.pt", nn.Flatten(), nn.Linear(30, 8)), CPU)
    plain = extract(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extract(images), plain)


class Endless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        i = torch.zeros(1)
        while bool((i < 1).all()):
            i = torch.rand(1) * 0.5
        return x.flatten(1) + i


@pytest.mark.slow
def test_a_network_that_does_not_end_is_left(tmp_path):
    torch.jit.script(Endless()).save(str(tmp_path / "endless.pt"))
    code = (
        "import torch, pathlib; from heatgen.metric import torchscript as t; p = pathlib.Path('endless.pt'); "
        "t.proven(t.load_script(p, torch.device('cpu')), torch.zeros(1, 1, 8, 8), p, 1.0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "endless.pt is still at work on one image after 1 seconds" in done.stderr
