"""Distances between features (FID, KID), the features themselves, and their cache."""

import http.server
import io
import os
import tempfile
import threading
import urllib.request
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import cleanfid.downloads_helper
import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torch import nn
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from heatgen.check import ConfigError
from heatgen.data.module import DataModule, Pixels
from heatgen.devices import Devices
from heatgen.metric.features import FILE, Inception, find_inception
from heatgen.metric.fid import FID, frechet_distance, moments
from heatgen.metric.kid import KID, polynomial_mmd
from heatgen.metric.metric import Subject

REAL = os.environ.get("HEATGEN_INCEPTION")
CPU = torch.device("cpu")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(n, d, seed):
    """Correlated features with a mean."""
    return normal(n, d, seed=seed) @ normal(d, d, seed=seed + 1) + normal(d, seed=seed + 2)


# distances --------------------------------------------------------------------------------------------------------------


def test_moments_are_the_mean_and_the_unbiased_covariance():
    x = features(9, 4, seed=0)
    mean, covariance = moments(x.float())
    assert mean.dtype == covariance.dtype == torch.float64
    assert np.allclose(mean, x.numpy().mean(0), atol=1e-6) and np.allclose(covariance, np.cov(x.numpy().T), atol=1e-5)


def test_equal_moments_have_no_distance():
    mean, covariance = moments(features(200, 20, seed=0))
    assert frechet_distance(mean, covariance, mean, covariance) < 1e-9 * covariance.trace()


def test_a_shift_of_unit_gaussians_costs_its_square():
    shift, identity = normal(30), torch.eye(30, dtype=torch.float64)
    distance = frechet_distance(torch.zeros(30, dtype=torch.float64), identity, shift, identity)
    assert distance == pytest.approx(shift.square().sum().item(), rel=1e-12)


def test_diagonal_covariances_cost_the_squared_differences_of_their_roots():
    a, b, zero = normal(30).square(), normal(30, seed=1).square(), torch.zeros(30, dtype=torch.float64)
    expected = (a.sqrt() - b.sqrt()).square().sum().item()
    assert frechet_distance(zero, a.diag(), zero, b.diag()) == pytest.approx(expected, rel=1e-12)


def test_the_distance_is_the_one_of_scipys_matrix_root_and_of_torchmetrics():
    first, second = moments(features(300, 40, seed=0)), moments(features(200, 40, seed=5))
    root = scipy.linalg.sqrtm(first[1].numpy() @ second[1].numpy()).real
    trace = np.trace(first[1].numpy() + second[1].numpy() - 2 * root)
    by_scipy = ((first[0] - second[0]).square().sum() + trace).item()
    distance = frechet_distance(*first, *second)
    assert distance == pytest.approx(by_scipy, rel=1e-9)
    assert distance == pytest.approx(_compute_fid(*first, *second).item(), rel=1e-9)


def test_covariances_without_full_rank_are_measured_exactly():
    first, second = moments(features(12, 64, seed=0)), moments(features(20, 64, seed=5))
    distance = frechet_distance(*first, *second)
    assert distance == pytest.approx(_compute_fid(*first, *second).item(), rel=1e-4)
    u, v, zero = normal(64), normal(64, seed=1), torch.zeros(64, dtype=torch.float64)
    expected = (u @ u + v @ v - 2 * (u @ v).abs()).item()  # tr (u u^T v v^T)^(1/2) = |u . v|
    assert frechet_distance(zero, u.outer(u), zero, v.outer(v)) == pytest.approx(expected, rel=1e-6)


def test_the_distance_is_symmetric():
    first, second = moments(features(60, 40, seed=0)), moments(features(30, 40, seed=5))
    assert frechet_distance(*first, *second) == pytest.approx(frechet_distance(*second, *first), rel=1e-9)


def test_the_kernel_distance_is_the_one_of_torchmetrics():
    x, y = features(50, 16, seed=0), features(50, 16, seed=5)
    assert polynomial_mmd(x, y) == pytest.approx(poly_mmd(x, y).item(), rel=1e-12)


def test_the_kernel_distance_of_sets_of_unequal_sizes_leaves_out_each_features_pair_with_itself():
    x, y = features(4, 3, seed=0), features(6, 3, seed=5)

    def mean(a, b, same):
        return np.mean(
            [(p @ q / 3 + 1).item() ** 3 for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        )

    assert polynomial_mmd(x, y) == pytest.approx(mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False), rel=1e-12)


def test_the_kernel_distance_of_one_distribution_is_zero_in_expectation():
    values = torch.tensor([polynomial_mmd(normal(20, 8, seed=2 * i), normal(12, 8, seed=2 * i + 1)) for i in range(400)])
    error = values.std() / 20
    assert abs(values.mean()) < 4 * error
    biased = 8 * (1 / 20 + 1 / 12) / 8  # what the diagonals would add is at least this
    assert error < biased / 10


# features ---------------------------------------------------------------------------------------------------------------


def script(path, *layers, name="layers"):
    """A TorchScript file with the sub-module `layers`, as the Inception file has."""
    module = nn.Sequential(OrderedDict({name: nn.Sequential(*layers)}))
    torch.jit.save(torch.jit.script(module), str(path))
    return path


@pytest.fixture
def weights(tmp_path):
    """A stand-in for Inception: 12 means of (x - 128) / 128, over the quarters of each channel."""
    return str(script(tmp_path / "stand-in.pt", nn.AdaptiveAvgPool2d(2), nn.Flatten()))


def flat(values, shape=(1, 5, 6)):
    """Images that are of one byte each."""
    return torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, *shape).contiguous()


def subject(tmp_path, n=100, model=None, **splits):
    shape = next(iter(splits.values())).shape[1:]
    data = DataModule(shape=list(shape), data_dir=str(tmp_path))
    data.read = lambda split: Pixels(splits[split])
    return Subject(model, data, "fake", Devices(accelerator="cpu"), n, batch_size=4, seed=0)


def model(way_back):
    """A model that starts from training images themselves."""
    return SimpleNamespace(
        process=SimpleNamespace(num_levels=1),
        initial_state=lambda u0, noise: u0,
        generate=lambda u, noise, on_step: way_back(u),
    )


TRAIN, TEST = [0, 30, 90, 120, 200, 255, 17], [10, 20, 60, 250]


def expected_fid(train, test):
    """All 12 features of an image are one number, so covariances are of rank 1."""
    a, b = ((np.array(v) - 128) / 128 for v in (train, test))
    return 12 * ((a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2)


def test_images_are_resized_as_clean_fid_does_and_not_rounded(tmp_path):
    image = torch.randint(0, 256, (1, 3, 7, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
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
    assert torch.equal(extract(flat([0, 128, 192])), torch.tensor([-1, 0, 0.5])[:, None].expand(-1, 12))


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


# end to end -------------------------------------------------------------------------------------------------------------


def test_fid_of_two_splits_is_the_closed_form_and_says_that_few_images_bias_it(tmp_path, weights):
    result = FID(source="test", weights=weights)(subject(tmp_path, train=flat(TRAIN), test=flat(TEST)))
    assert result.values["fid"] == pytest.approx(expected_fid(TRAIN, TEST), rel=1e-5)
    assert result.facts["n"] == 4 and result.facts["reference"] == "fake train, 7 images"
    assert len(result.notes) == 1 and "only 4 images, fewer than the 2048 features" in result.notes[0]


def test_fid_is_not_called_biased_at_2048_images(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(Inception, "__call__", lambda self, images: images[:, 0, :, 0].float())
    images = torch.randint(0, 256, (2048, 1, 5, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for n, notes in ((2048, 0), (2047, 1)):
        result = FID(source="test", weights=weights)(subject(tmp_path, n=n, train=images, test=images))
        assert len(result.notes) == notes


def test_kid_of_two_splits_is_the_closed_form(tmp_path, weights):
    metric = KID(source="test", weights=weights, subsets=3, subset_size=4, reference_n=4)
    result = metric(subject(tmp_path, train=flat(TEST), test=flat([200, 210, 220, 230])))
    a, b = (torch.tensor((np.array(v) - 128) / 128)[:, None].expand(-1, 12) for v in ([200, 210, 220, 230], TEST))
    assert result.values["kid"] == pytest.approx(poly_mmd(a, b).item(), rel=1e-5)
    assert result.facts["subset_size"] == 4 and result.facts["std_over_subsets"] < 1e-12


def test_features_of_the_data_are_kept_and_used_again(tmp_path, weights, monkeypatch):
    first = FID(source="test", weights=weights)(subject(tmp_path, train=flat(TRAIN), test=flat(TEST)))
    stored = sorted((tmp_path / "statistics").iterdir())
    assert sorted(np.load(path).shape for path in stored) == [(4, 12), (7, 12)]

    def forbidden(self, images):
        raise AssertionError("the extractor was called")

    monkeypatch.setattr(Inception, "__call__", forbidden)
    second = FID(source="test", weights=weights)(subject(tmp_path, train=flat(TRAIN), test=flat(TEST)))
    assert second.values == first.values and sorted((tmp_path / "statistics").iterdir()) == stored
    changed = flat(TRAIN)
    changed[3, 0, 2, 2] += 1
    with pytest.raises(AssertionError, match="the extractor was called"):
        FID(source="test", weights=weights)(subject(tmp_path, train=changed, test=flat(TEST)))
    with pytest.raises(AssertionError, match="the extractor was called"):
        FID(source="test", weights=weights, reference_n=6)(subject(tmp_path, train=flat(TRAIN), test=flat(TEST)))


def test_kept_features_belong_to_the_network_they_were_taken_with(tmp_path):
    values = []
    for i, scale in enumerate((1.0, 3.0)):
        (tmp_path / str(i)).mkdir()
        mix = nn.Linear(12, 4, bias=False)
        nn.init.constant_(mix.weight, scale)
        path = script(tmp_path / str(i) / FILE, nn.AdaptiveAvgPool2d(2), nn.Flatten(), mix)
        result = FID(source="test", weights=str(path))(subject(tmp_path, train=flat(TRAIN), test=flat(TEST)))
        values.append(result.values["fid"])
    assert values[1] == pytest.approx(9 * values[0], rel=1e-5)


@pytest.mark.parametrize(("truncate", "byte"), [(False, 255), (True, 254)])
def test_samples_become_bytes_by_rounding_or_as_the_original_code_does(tmp_path, weights, truncate, byte):
    measured = subject(tmp_path, n=6, model=model(lambda u: 0 * u + 0.999), train=flat([255] * 3))
    distance = FID(weights=weights, truncate=truncate)(measured).values["fid"]
    assert distance == pytest.approx(12 * ((255 - byte) / 128) ** 2, abs=1e-9)


def test_every_sample_starts_from_another_training_image_and_batches_do_not_matter(tmp_path, weights):
    measured = subject(tmp_path, n=7, model=model(lambda u: u), train=flat(TRAIN))
    assert FID(weights=weights)(measured).values["fid"] < 1e-9
    measured.batch_size = 3
    assert FID(weights=weights)(measured).values["fid"] < 1e-9


def test_one_image_has_no_covariance_and_is_refused(tmp_path, weights):
    images = {"train": flat(TRAIN), "test": flat(TEST), "val": flat([5])}
    with pytest.raises(ConfigError, match="n must be a whole number of at least 2"):
        FID(source="test", weights=weights)(subject(tmp_path, n=1, **images))
    with pytest.raises(ConfigError):
        FID(source="val", weights=weights)(subject(tmp_path, **images))
    with pytest.raises(ConfigError):
        FID(source="test", reference="val", weights=weights)(subject(tmp_path, **images))


def test_measuring_a_model_without_one_says_what_to_do(tmp_path, weights):
    with pytest.raises(ConfigError, match=r"metric\.source=model needs a run"):
        FID(weights=weights)(subject(tmp_path, train=flat(TRAIN)))


@pytest.mark.slow
@pytest.mark.skipif(not REAL or not Path(REAL).is_file(), reason="HEATGEN_INCEPTION names no file")
def test_the_real_inception_gives_the_distance_that_torchmetrics_gives_of_its_features():
    images = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    images[32:] = nn.functional.avg_pool2d(images[32:], 5, 1, 2)
    extract = Inception(Path(REAL), CPU)
    found = extract((255 * images).to(torch.uint8))
    assert found.shape == (64, 2048) and (found >= 0).all()
    first, second = moments(found[:32]), moments(found[32:])
    distance = frechet_distance(*first, *second)
    assert distance > 10
    assert distance == pytest.approx(_compute_fid(*first, *second).item(), rel=1e-4)
