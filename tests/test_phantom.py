import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from spine_tasks.data import phantom
from spine_tasks.data.phantom_anatomy import POPULATIONS, Tissue, sample_anatomy, tissue_map
from spine_tasks.data.phantom_scan import SITES, add_rician_noise, render
from spine_tasks.errors import DataError

ADULTS = [f"sub-adult{number:02d}" for number in range(1, 9)]
CHILDREN = [f"sub-paed{number:02d}" for number in range(1, 9)]
SIGNALS = np.arange(len(Tissue), dtype=float)


@pytest.fixture(scope="module")
def scans():
    return {name: phantom.subject(name) for name in ADULTS + CHILDREN}


def areas_mm2(scan, mask):
    pixel = np.prod(nib.affines.voxel_sizes(scan.affine)[:2])
    return mask.sum(axis=(0, 1)) * pixel


def bytes_by_name(folder):
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def run_python(code, *args, **environment):
    command = [sys.executable, "-c", code, *map(str, args)]
    root = Path(phantom.__file__).parents[2]
    return subprocess.Popen(
        command, cwd=root, env={"PYTHONPATH": str(root), **environment}, stdout=subprocess.PIPE
    )


def test_a_data_set_made_again_by_another_process_is_byte_identical(tmp_path):
    names = ["sub-paed01", "sub-adult01"]
    phantom.write(tmp_path / "a", names)
    code = (
        "import pathlib, sys; from spine_tasks.data import phantom;"
        "phantom.write(pathlib.Path(sys.argv[1]), sys.argv[2:])"
    )
    # Another hash seed, order and second of the day must not show.
    other = run_python(code, tmp_path / "b", *reversed(names), names[0], PYTHONHASHSEED="7")
    assert other.wait() == 0
    assert bytes_by_name(tmp_path / "a") == bytes_by_name(tmp_path / "b")


def test_gzip_headers_hold_neither_time_nor_name(tmp_path):
    phantom.write(tmp_path / "a", ["sub-paed01"])
    for name, content in bytes_by_name(tmp_path / "a").items():
        if name.endswith(".gz"):
            assert content[3:8] == bytes(5)  # flags (no name), then the time as four bytes


def test_a_subject_does_not_depend_on_which_were_made_before(scans):
    again = phantom.subject(ADULTS[-1])
    assert all(np.array_equal(a, b) for a, b in zip(again, scans[ADULTS[-1]], strict=True))


def test_every_subject_has_a_cord_of_its_own(scans):
    masks = {(scan.cord.shape, scan.cord.tobytes()) for scan in scans.values()}
    affines = {scan.affine.tobytes() for scan in scans.values()}
    assert len(masks) == len(affines) == len(scans)


def test_gray_matter_lies_inside_the_cord_in_every_slice(scans):
    for scan in scans.values():
        assert not (scan.gray_matter & ~scan.cord).any()
        assert scan.gray_matter.any(axis=(0, 1)).all()
        touches = np.ones(scan.cord.shape, bool)
        touches[1:-1, 1:-1] = False
        assert not (scan.cord & touches).any()


def test_areas_are_those_of_human_cords(scans):
    # Real adult cervical cords: about 60 to 100 mm2, of which gray matter is 10 to 25 %.
    for name in ADULTS:
        cord = areas_mm2(scans[name], scans[name].cord).mean()
        gray_matter = areas_mm2(scans[name], scans[name].gray_matter).mean()
        assert 60 < cord < 105
        assert 0.10 < gray_matter / cord < 0.25


def test_children_have_smaller_cords_and_less_gray_matter(scans):
    def mean_area(names, mask):
        return np.mean([areas_mm2(scans[n], getattr(scans[n], mask)).mean() for n in names])

    for mask, ratio in (("cord", 0.95), ("gray_matter", 0.85)):
        assert mean_area(CHILDREN, mask) < ratio * mean_area(ADULTS, mask)


def test_cord_changes_smoothly_from_slice_to_slice(scans):
    for scan in scans.values():
        cord = areas_mm2(scan, scan.cord)
        assert np.abs(np.diff(cord)).max() < 0.15 * cord.mean()
        assert np.ptp(cord) > 0


def test_signal_falls_from_csf_over_gray_to_white_matter_to_bone(scans):
    for name in ADULTS:
        scan = scans[name]
        inner_white = ndimage.binary_erosion(scan.cord & ~scan.gray_matter, np.ones((3, 3, 1)))
        around = [ndimage.binary_dilation(scan.cord, np.ones((3, 3, 1)), n) for n in (1, 4)]
        csf = np.median(scan.image[around[1] & ~around[0]])
        gray = scan.image[scan.gray_matter].mean()
        white = scan.image[inner_white].mean()
        assert csf > 1.15 * gray
        assert gray > 1.08 * white
        assert white > 2 * np.percentile(scan.image, 1)


def test_children_have_less_contrast_to_noise(scans):
    def contrast_to_noise(scan):
        white = ndimage.binary_erosion(scan.cord & ~scan.gray_matter, np.ones((3, 3, 1)))
        gray = scan.image[scan.gray_matter].mean()
        return (gray - scan.image[white].mean()) / scan.image[white].std()

    adult, child = (
        np.mean([contrast_to_noise(scans[n]) for n in group]) for group in (ADULTS, CHILDREN)
    )
    assert 0 < child < 0.75 * adult


def test_the_butterfly_has_thick_ventral_and_long_thin_dorsal_horns():
    anatomy = dataclasses.replace(
        sample_anatomy(POPULATIONS["adult"], np.random.default_rng(0)),
        center_mm=(0, 0),
        rotation=0,
        asymmetry=0,
    )
    mm = np.linspace(-8, 8, 321)
    gray = tissue_map(anatomy, mm[:, None], mm[None, :], 0.0) == Tissue.GRAY_MATTER
    assert np.array_equal(gray, gray[::-1])  # right and left
    assert ndimage.label(gray)[1] == 1  # joined by the commissure
    widths = gray.sum(axis=0) / 2  # of one horn, by y
    ventral, dorsal = widths[mm > 0.6], widths[mm < -0.6]
    assert ventral.max() > 1.5 * dorsal.max()
    assert np.count_nonzero(dorsal) > np.count_nonzero(ventral)
    horns = gray[:, np.searchsorted(mm, -1.5)]
    assert ndimage.label(horns)[1] == 2
    assert not horns[mm.size // 2]


def test_areas_in_mm2_do_not_depend_on_the_voxel_size():
    anatomy = sample_anatomy(POPULATIONS["adult"], np.random.default_rng(1))
    _, *fine = render(anatomy, SIGNALS, (128, 128, 2), (0.25, 0.25, 5.0))
    _, *coarse = render(anatomy, SIGNALS, (40, 80, 2), (0.8, 0.4, 5.0))
    for a, b in zip(fine, coarse, strict=True):
        assert a.sum() * 0.25**2 == pytest.approx(b.sum() * 0.8 * 0.4, rel=0.06)


def test_partial_volume_mixes_the_two_tissues_at_an_edge():
    anatomy = sample_anatomy(POPULATIONS["adult"], np.random.default_rng(2))
    signals = np.where(np.arange(len(Tissue)) >= Tissue.WHITE_MATTER, 1.0, 0.0)
    fraction, _, cord = render(anatomy, signals, (64, 64, 2), (0.5, 0.5, 5.0))
    assert ((fraction > 0) & (fraction < 1)).any()
    assert np.array_equal(cord, fraction >= 0.5)


def test_noise_without_signal_is_rayleigh():
    noise = add_rician_noise(np.zeros((100, 100, 10)), 3.0, np.random.default_rng(0))
    assert noise.mean() == pytest.approx(3 * np.sqrt(np.pi / 2), rel=0.01)
    assert noise.std() == pytest.approx(3 * np.sqrt(2 - np.pi / 2), rel=0.01)


def test_noise_on_strong_signal_has_sd_sigma():
    noisy = add_rician_noise(np.full((100, 100, 10), 300.0), 3.0, np.random.default_rng(0))
    assert noisy.mean() == pytest.approx(300 + 3**2 / (2 * 300), abs=0.03)
    assert noisy.std() == pytest.approx(3, rel=0.01)


def test_files_hold_what_subject_returns(tmp_path):
    name = "sub-paed03"
    folder = phantom.ensure(tmp_path / "phantom", [name])
    scan = phantom.subject(name)
    image = nib.load(folder / name / "anat" / f"{name}_T2starw.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), scan.image)
    assert np.allclose(image.affine, scan.affine, atol=1e-4)
    assert image.header.get_zooms() == pytest.approx(SITES[phantom.site(name)].spacing_mm)
    for suffix, mask in (("gmseg", scan.gray_matter), ("seg", scan.cord)):
        labels = folder / "derivatives" / "labels" / name / "anat"
        stored = nib.load(labels / f"{name}_T2starw_{suffix}-manual.nii.gz")
        assert stored.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(stored.dataobj), mask)
        assert np.array_equal(stored.affine, image.affine)


def test_affines_are_oblique_but_close_to_ras(scans):
    for scan in scans.values():
        assert nib.aff2axcodes(scan.affine) == ("R", "A", "S")
        assert np.abs(scan.affine[:3, :3][~np.eye(3, dtype=bool)]).min() > 0
        assert np.linalg.det(scan.affine[:3, :3]) == pytest.approx(
            np.prod(nib.affines.voxel_sizes(scan.affine))
        )


def test_participants_are_listed_once_with_population_and_site(tmp_path):
    folder = phantom.ensure(tmp_path / "p", ["sub-paed01", "sub-adult01", "sub-paed01"])
    lines = (folder / "participants.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [
        ["participant_id", "population"],
        ["sub-adult01", "adult"],
        ["sub-paed01", "paediatric"],
    ]
    assert lines[1].split("\t")[2] in POPULATIONS["adult"].sites


def test_two_processes_at_once_make_one_whole_data_set(tmp_path):
    code = (
        "import pathlib, sys; from spine_tasks.data import phantom;"
        "print(phantom.ensure(pathlib.Path(sys.argv[1]), sys.argv[2:]))"
    )
    shared = tmp_path / "new" / "phantom"
    racers = [run_python(code, shared, *ADULTS[:4]) for _ in range(2)]
    outputs = [racer.communicate()[0].decode().strip() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert outputs == [str(shared)] * 2
    phantom.write(tmp_path / "alone", ADULTS[:4])
    assert bytes_by_name(shared) == bytes_by_name(tmp_path / "alone")
    assert [entry.name for entry in shared.parent.iterdir()] == ["phantom"]  # nothing left over


def test_the_loser_of_a_race_uses_the_winners_files(tmp_path, monkeypatch):
    folder, write = tmp_path / "phantom", phantom.write

    def be_overtaken(made, subjects):
        write(made, subjects)
        write(folder, subjects)

    monkeypatch.setattr(phantom, "write", be_overtaken)
    assert phantom.ensure(folder, ["sub-paed01"]) == folder
    assert [entry.name for entry in tmp_path.iterdir()] == ["phantom"]


def test_an_existing_data_set_is_used_as_it_is(tmp_path):
    folder = phantom.ensure(tmp_path / "phantom", ["sub-paed01", "sub-paed02"])
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    phantom.ensure(folder, ["sub-paed02"])
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_files_of_another_version_are_refused(tmp_path, monkeypatch):
    folder = phantom.ensure(tmp_path / "phantom", ["sub-paed01"])
    assert json.loads((folder / "dataset_description.json").read_text())["GeneratedBy"]
    monkeypatch.setattr(phantom, "VERSION", "another")
    with pytest.raises(DataError, match=r"'another'.*remove it"):
        phantom.ensure(folder, ["sub-paed01"])


def test_a_data_set_without_a_wanted_subject_is_refused(tmp_path):
    folder = phantom.ensure(tmp_path / "phantom", ["sub-paed01"])
    with pytest.raises(DataError, match="lacks 1 of 2 subjects, first sub-paed02"):
        phantom.ensure(folder, ["sub-paed01", "sub-paed02"])


def test_a_lost_mask_counts_as_a_missing_subject(tmp_path):
    folder = phantom.ensure(tmp_path / "phantom", ["sub-paed01"])
    next(folder.rglob("*_seg-manual.nii.gz")).unlink()
    with pytest.raises(DataError, match="first sub-paed01"):
        phantom.ensure(folder, ["sub-paed01"])


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for make in (phantom.ensure, phantom.write):
        with pytest.raises(DataError, match="choose another folder"):
            make(tmp_path, ["sub-paed01"])
    with pytest.raises(DataError, match="is not a phantom data set"):
        phantom.ensure(tmp_path / "thesis.txt", ["sub-paed01"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "name", ["sub-01", "sub-adult", "adult01", "sub-adult01_T2starw", "sub-paed1\n", "", "../x"]
)
def test_an_unknown_id_is_named_with_what_is_allowed(name, tmp_path):
    with pytest.raises(DataError, match="sub-adult or sub-paed followed by digits") as refusal:
        phantom.subject(name)
    assert repr(name) in str(refusal.value)
    with pytest.raises(DataError):
        phantom.ensure(tmp_path / "phantom", ["sub-adult01", name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("subjects", [[], "sub-adult01"])
def test_subjects_are_a_list_of_at_least_one(subjects, tmp_path):
    with pytest.raises(DataError, match="list of at least one id"):
        phantom.ensure(tmp_path / "phantom", subjects)
