import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from spine_tasks.data import phantom_cords
from spine_tasks.data.phantom_cords import SOURCES, ensure, scan
from spine_tasks.data.phantom_scan import SITES, Scan, expose
from spine_tasks.errors import DataError
from spine_tasks.nnunet.pairs import find_pairs
from spine_tasks.nnunet.sources import SOURCES_FILE, load_sources

SUBJECTS = [
    *("siteA_sub-adult01", "siteA_sub-adult02"),
    *("siteB_sub-adult01", "siteB_sub-adult02"),
    "unseen_sub-adult01",
]
SCANS = [(name, one) for name in SUBJECTS for one in SOURCES[name.split("_")[0]].contrasts]
IN_PLANE = np.ones((3, 3, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ensure(tmp_path_factory.mktemp("made") / "cords", SUBJECTS)


@pytest.fixture(scope="module")
def scans():
    """Each scan with axes close to R, A, S."""
    return {which: in_ras(scan(*which)) for which in SCANS}


def in_ras(taken):
    turned = [
        nib.as_closest_canonical(nib.Nifti1Image(array.astype(np.float32), taken.affine))
        for array in taken[:3]
    ]
    image, gray_matter, cord = (np.asarray(one.dataobj) for one in turned)
    return Scan(image, gray_matter > 0, cord > 0, turned[0].affine)


def areas_mm2(taken):
    return taken.cord.sum(axis=(0, 1)) * np.prod(nib.affines.voxel_sizes(taken.affine)[:2])


def around(mask, first, last):
    """The ring of pixels from `first` to `last` px outside a mask."""
    near, far = (ndimage.binary_dilation(mask, IN_PLANE, n) for n in (first, last))
    return far & ~near


def bytes_by_name(folder):
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_files_made_again_in_another_order_are_byte_identical(folder, tmp_path):
    again = ensure(tmp_path / "again", [*reversed(SUBJECTS), SUBJECTS[0]])
    assert bytes_by_name(again) == bytes_by_name(folder)


def test_a_subject_does_not_depend_on_which_others_there_are(folder, tmp_path):
    alone = bytes_by_name(ensure(tmp_path / "alone", ["siteB_sub-adult02"]))
    whole = bytes_by_name(folder)
    images = [name for name in alone if name.endswith(".nii.gz")]
    assert len(images) == 4
    assert all(alone[name] == whole[name] for name in images)


def test_scans_of_a_subject_share_its_anatomy(scans):
    for subject in ("siteA_sub-adult01", "siteB_sub-adult02"):
        a, b = (taken for (name, _), taken in scans.items() if name == subject)
        assert areas_mm2(a) == pytest.approx(areas_mm2(b), rel=0.03)
        assert np.array_equal(a.affine, b.affine)
        # Moved a little: a mask of the other scan must not be right to the voxel.
        overlap = 2 * (a.cord & b.cord).sum() / (a.cord.sum() + b.cord.sum())
        assert 0.7 < overlap < 1


def test_subjects_of_the_same_number_in_other_sources_are_other_persons(scans):
    site_a, unseen = scans["siteA_sub-adult01", "T2w"], scans["unseen_sub-adult01", "T2starw"]
    assert not np.allclose(site_a.affine, unseen.affine)
    assert areas_mm2(site_a) != pytest.approx(areas_mm2(unseen), rel=0.03)


def test_scans_of_a_subject_have_noise_of_their_own(scans):
    for subject in ("siteA_sub-adult01", "siteA_sub-adult02"):
        t1w, t2w = (scans[subject, contrast] for contrast in ("T1w", "T2w"))
        inside = ndimage.binary_erosion(t1w.cord & t2w.cord, IN_PLANE, 3)
        noise = [
            (one.image - ndimage.gaussian_filter(one.image, (1, 1, 0)))[inside]
            for one in (t1w, t2w)
        ]
        assert inside.sum() > 300
        assert abs(np.corrcoef(noise)[0, 1]) < 0.3


def test_csf_is_darker_than_the_cord_in_t1w_and_brighter_in_the_others(scans):
    bounds = {"T1w": (0.25, 0.65), "T2w": (1.9, 3.0), "T2starw": (1.3, 2.4)}
    for (_, contrast), taken in scans.items():
        white = ndimage.binary_erosion(taken.cord & ~taken.gray_matter, IN_PLANE)
        ratio = np.median(taken.image[around(taken.cord, 1, 3)]) / np.median(taken.image[white])
        low, high = bounds[contrast]
        assert low < ratio < high


def test_gray_matter_differs_from_white_as_csf_does(scans):
    for (_, contrast), taken in scans.items():
        white = ndimage.binary_erosion(taken.cord & ~taken.gray_matter, IN_PLANE)
        ratio = taken.image[taken.gray_matter].mean() / taken.image[white].mean()
        low, high = {"T1w": (0.8, 0.97), "T2w": (1.02, 1.2), "T2starw": (1.08, 1.4)}[contrast]
        assert low < ratio < high


def test_files_hold_what_scan_returns_with_masks_on_their_images_grids(folder):
    for source in load_sources(folder / SOURCES_FILE).values():
        for pair in find_pairs(source)[0]:
            taken = scan(pair.subject, pair.contrast)
            image, mask = nib.load(pair.image), nib.load(pair.label)
            assert np.array_equal(np.asarray(image.dataobj), taken.image)
            assert np.allclose(image.affine, taken.affine, atol=1e-4)
            assert mask.get_data_dtype() == np.uint8
            assert np.array_equal(np.asarray(mask.dataobj), taken.cord)
            assert np.array_equal(mask.affine, image.affine)


def test_the_sources_file_finds_every_scan_and_leaves_no_image_alone(folder):
    found = [find_pairs(source) for source in load_sources(folder / SOURCES_FILE).values()]
    pairs = [(pair.subject, pair.contrast) for some, _ in found for pair in some]
    assert sorted(pairs) == sorted(SCANS)
    assert [alone for _, alone in found] == [[], [], []]
    images = [file for file in folder.rglob("*.nii.gz") if "derivatives" not in file.parts]
    assert len(images) == len(SCANS)  # none that the file does not list


def test_the_sources_file_still_holds_after_the_folder_is_moved(tmp_path):
    moved = ensure(tmp_path / "cords", ["unseen_sub-adult01"]).rename(tmp_path / "elsewhere")
    (source,) = load_sources(moved / SOURCES_FILE).values()
    assert [pair.contrast for pair in find_pairs(source)[0]] == ["T2starw"]


def test_only_sources_with_subjects_are_made_and_listed(tmp_path):
    made = ensure(tmp_path / "cords", ["unseen_sub-adult01", "siteB_sub-adult01"])
    assert list(load_sources(made / SOURCES_FILE)) == ["siteB", "unseen"]
    assert {one.name for one in made.iterdir() if one.is_dir()} == {"siteB", "unseen"}
    assert [one.name for one in tmp_path.iterdir()] == ["cords"]  # nothing left over


def test_each_source_is_a_bids_data_set_of_its_own_participants(folder):
    for name, source in SOURCES.items():
        own = [one.removeprefix(f"{name}_") for one in SUBJECTS if one.startswith(name)]
        header, *rows = (folder / name / "participants.tsv").read_text().splitlines()
        assert header.split("\t") == ["participant_id", "population", "site"]
        assert [row.split("\t") for row in rows] == [[one, "adult", source.site] for one in own]
        for below, kind in ((".", "raw"), ("derivatives/labels", "derivative")):
            file = folder / name / below / "dataset_description.json"
            described = json.loads(file.read_text())
            assert described["DatasetType"] == kind
            assert described["BIDSVersion"]


def test_sites_store_their_axes_differently(folder):
    for source in load_sources(folder / SOURCES_FILE).values():
        site = SOURCES[source.name].site
        image = nib.load(find_pairs(source)[0][0].image)
        axes = {"A": ("R", "A", "S"), "B": ("P", "S", "R")}[site]
        spacing = dict(zip(("R", "A", "S"), SITES[site].spacing_mm, strict=True))
        assert nib.aff2axcodes(image.affine) == axes
        assert image.header.get_zooms() == pytest.approx(
            [spacing[{"P": "A"}.get(axis, axis)] for axis in axes]
        )


def test_affines_tell_the_truth_about_the_cord():
    for which in SCANS:
        taken = scan(*which)
        cord_mm, gray_mm = (
            nib.affines.apply_affine(taken.affine, np.argwhere(mask))
            for mask in (taken.cord, taken.gray_matter)
        )
        # A world axis each: the cord is longest from inferior to superior, then right to left.
        along = np.linalg.svd(cord_mm - cord_mm.mean(axis=0), full_matrices=False)[2]
        assert np.argmax(np.abs(along), axis=1).tolist() == [2, 0, 1]
        # Dorsal horns are longer than ventral ones: a flipped axis would show.
        middle = cord_mm[:, 1].mean()
        behind, before = middle - gray_mm[:, 1].min(), gray_mm[:, 1].max() - middle
        assert behind > before


def test_site_a_stores_voxels_as_they_were_taken(monkeypatch):
    taken = []

    def record(*given):
        taken.append(expose(*given))
        return taken[0]

    monkeypatch.setattr(phantom_cords, "expose", record)
    stored = scan("siteA_sub-adult01", "T1w")  # left and right look alike, so nothing else tells
    assert all(np.array_equal(a, b) for a, b in zip(stored[:3], taken[0][:3], strict=True))


def test_site_b_is_turned_from_the_scan_not_mirrored(scans, monkeypatch):
    which = ("siteB_sub-adult01", "T2starw")
    monkeypatch.setitem(phantom_cords.AXES, "B", "RAS")
    straight = scan(*which)
    assert np.array_equal(straight.image, scans[which].image)
    assert np.array_equal(straight.cord, scans[which].cord)
    assert np.allclose(straight.affine, scans[which].affine)


def test_an_existing_data_set_is_used_as_it_is(folder):
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert ensure(folder, SUBJECTS[-2:]) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_files_of_another_version_are_refused(folder, monkeypatch):
    monkeypatch.setattr(phantom_cords, "MADE_BY", phantom_cords.MADE_BY | {"Version": "another"})
    with pytest.raises(DataError, match=r"'another'.*remove it"):
        ensure(folder, SUBJECTS)


@pytest.mark.parametrize("name", ["siteA_sub-adult03", "unseen_sub-adult02"])
def test_a_data_set_without_a_wanted_subject_is_refused(name, folder):
    with pytest.raises(DataError, match=f"lacks 1 of 2 subjects, first {name}"):
        ensure(folder, [SUBJECTS[0], name])


@pytest.mark.parametrize(
    "lost", ["*/sub-adult01_T2w_seg-manual.nii.gz", "*/*_T1w.nii.gz", "*.yaml"]
)
def test_a_lost_file_counts_as_a_missing_subject(lost, tmp_path):
    made = ensure(tmp_path / "cords", ["siteA_sub-adult01"])
    next(made.rglob(lost)).unlink()
    with pytest.raises(DataError, match="first siteA_sub-adult01"):
        ensure(made, ["siteA_sub-adult01"])


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(DataError, match=r"is not a phantom data set.*choose another folder"):
            ensure(place, SUBJECTS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "name",
    [
        *("sub-adult01", "siteC_sub-adult01", "siteA_sub-paed01", "siteA_sub-adult01\n"),
        *("unseen_sub-adult", "siteA_sub-adult01_T1w", "sitea_sub-adult01", "../x", ""),
    ],
)
def test_an_unknown_id_is_named_with_what_is_allowed(name, tmp_path):
    with pytest.raises(DataError, match="siteA, siteB, unseen followed by _sub-adult") as refusal:
        scan(name, "T2w")
    assert repr(name) in str(refusal.value)
    with pytest.raises(DataError, match="_sub-adult and digits"):
        ensure(tmp_path / "cords", ["siteA_sub-adult01", name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "contrast", "allowed"),
    [("siteA", "T2starw", "T1w, T2w"), ("unseen", "T2w", "T2starw"), ("siteB", "", "T2w, T2starw")],
)
def test_an_unknown_contrast_is_named_with_what_the_source_has(name, contrast, allowed):
    with pytest.raises(DataError, match=f"no contrast '{contrast}'; it has {allowed}$"):
        scan(f"{name}_sub-adult01", contrast)


@pytest.mark.parametrize("subjects", [[], "siteA_sub-adult01"])
def test_subjects_are_a_list_of_at_least_one(subjects, tmp_path):
    with pytest.raises(DataError, match="list of at least one id"):
        ensure(tmp_path / "cords", subjects)
