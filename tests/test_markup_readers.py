"""Reading markup of other tools: each format as its tool writes it, and each way to go wrong."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from spine_tasks.errors import ConfigError, DataError
from spine_tasks.markup import graded, listed, masks, table, voc
from spine_tasks.markup.naming import Naming, load_naming

SIZE = (60, 40)  # width, height
KEEP = "Визуализируются (можно размечать)"
STATE = "На срезе визуализируются межпозвоночные диски"  # noqa: RUF001
HEALTHY = "shejnyj-mezhpozvonochnyj-disk-zdorovyj"
SICK = "shejnyj-mezhpozvonochnyj-disk-protruziya"
THORACIC = "grudnoj-mezhpozvonochnyj-disk-zdorovyj"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "p2").mkdir(parents=True)
    for name in ("a.png", "b.png", "p2/c.png"):
        Image.new("L", SIZE, 7).save(folder / name)
    return folder


def rows(image):
    return list(zip(image.classes, image.boxes.tolist(), strict=True))


# Tables with XML in a column


def labelme(*marks, root="annotation", size=SIZE):
    def polygon(box):
        x1, y1, x2, y2 = box
        points = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
        return "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in points)

    objects = "".join(
        f"<object><name>{name}</name><deleted>{deleted}</deleted>"
        f"<polygon>{polygon(box)}</polygon></object>"
        for name, box, deleted in marks
    )
    inside = f"<imagesize><nrows>{size[1]}</nrows><ncols>{size[0]}</ncols></imagesize>{objects}"
    if root == "annotation":
        return f"<annotation>{inside}</annotation>"
    return f"<{root}><annotation>{inside}</annotation></{root}>"


MARKS = (
    (HEALTHY, (1, 2, 30, 10), 0),
    (SICK, (1, 12, 30, 20), 0),
    (SICK, (2, 22, 30, 30), 1),
    (THORACIC, (3, 32, 30, 39), 0),
)


def write_table(tmp_path, *lines, columns=("Файлы", "XML", STATE), encoding="utf-8"):
    file = tmp_path / "marks.csv"
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines]
    file.write_bytes("\n".join([",".join(columns), *quoted, ""]).encode(encoding))
    return file


def test_the_studys_table_gives_healthy_and_sick_cervical_discs_only(tmp_path, images):
    file = write_table(
        tmp_path,
        ("a.png", labelme(*MARKS), KEEP),
        ("b.png/n", labelme(*MARKS[:1], root="annotationgroup"), KEEP),
        ("gone.png", labelme(*MARKS), "no"),
        ("p2/c.png", "", KEEP),
    )
    found = table.read_table_markup(file, images, table.PUBLISHED)
    assert found.classes == ("healthy", "sick")
    assert [image.name for image in found.images] == ["a.png", "b.png"]
    assert rows(found.images[0]) == [("healthy", [1, 2, 30, 10]), ("sick", [1, 12, 30, 20])]
    assert found.images[0].size == SIZE
    assert [str(note) for note in found.notes] == [
        "1 rows left out, as their column says: gone.png",
        "1 rows without XML left out: p2/c.png",
        "1 boxes marked as deleted: a.png",
    ]


def test_other_columns_are_named_in_the_file_of_names(tmp_path, images):
    names = tmp_path / "names.yaml"
    names.write_text("columns: {image: file, xml: marks}\nkeep: {}\nclasses: {'*': disc}\n")
    file = write_table(tmp_path, ("a.png", labelme(*MARKS), "7"), columns=("file", "marks", "who"))
    naming = load_naming(names, table.PUBLISHED)
    found = table.read_table_markup(tmp_path, images, naming)
    assert found.images[0].classes == ("disc",) * 3
    assert found.images[0].keys["who"] == "7"
    with pytest.raises(DataError, match=r"marks\.csv: no column 'Файлы'.*say in the file"):
        table.read_table_markup(file, images, table.PUBLISHED)


def test_a_longer_cell_than_csv_allows_by_default_is_read(tmp_path, images):
    xml = labelme(*MARKS) + "<!--" + "x" * 200_000 + "-->"
    file = write_table(tmp_path, ("a.png", xml, KEEP))
    assert len(table.read_table_markup(file, images, table.PUBLISHED).images) == 1


def test_a_cyrillic_windows_table_is_refused_with_the_command_that_converts_it(tmp_path, images):
    file = write_table(tmp_path, ("a.png", labelme(), KEEP), encoding="cp1251")
    with pytest.raises(DataError, match=r"not in UTF-8 .*iconv -f cp1251 -t utf-8 marks\.csv"):
        table.read_table_markup(file, images, table.PUBLISHED)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("a.png", "<annotation>", KEEP), r"row 1 \(a\.png\): broken XML"),
        (("a.png", labelme(("shejnij-disk", (1, 1, 2, 2), 0)), KEEP), "no class for the label"),
        (("x.png", labelme(*MARKS), KEEP), r"no picture x\.png"),
        (("a.png", "<labels/>", KEEP), "its root is <labels> with 0"),
        (("a.png", labelme(*MARKS)), "row 1 has not the 3 values"),
        (("a.png", labelme(*MARKS).replace("<y>2</y>", "<y>3</y>", 1), KEEP), "not a rectangle"),
        (("a.png", labelme(*MARKS).replace("<x>1</x>", "<x>1,5</x>", 1), KEEP), "must be a number"),
    ],
)
def test_a_wrong_row_is_named_and_said_what_to_do_about(tmp_path, images, line, message):
    with pytest.raises(DataError, match=message):
        table.read_table_markup(write_table(tmp_path, line), images, table.PUBLISHED)


def test_a_table_without_rows_or_with_two_for_one_picture_is_refused(tmp_path, images):
    with pytest.raises(DataError, match="no picture with markup"):
        table.read_table_markup(write_table(tmp_path), images, table.PUBLISHED)
    twice = write_table(tmp_path, *[("a.png", labelme(*MARKS), KEEP)] * 2)
    with pytest.raises(DataError, match=r"1 pictures have more than one entry: a\.png"):
        table.read_table_markup(twice, images, table.PUBLISHED)


# PASCAL VOC


def voc_xml(name, *marks, head=""):
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox>"
        "<part><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>1</xmax><ymax>1</ymax></bndbox></part>"
        "</object>"
        for label, b in marks
    )
    size = "<size><width>60</width><height>40</height><depth>1</depth></size>"
    return f"{head}<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def write_voc(tmp_path, *texts):
    folder = tmp_path / "xml"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.xml").write_text(text)
    return folder


def test_voc_keeps_labels_as_classes_and_edges_as_written(tmp_path, images):
    first = voc_xml("b.png", ("disc", (1.5, 2, 30, 10)), ("cord", (0, 0, 60, 40)))
    folder = write_voc(tmp_path, first, voc_xml("p2/c.png"))
    found = voc.read_voc(folder, images, Naming())
    assert found.classes == ("cord", "disc")
    assert rows(found.images[0]) == [("disc", [1.5, 2, 30, 10]), ("cord", [0, 0, 60, 40])]
    assert [(image.name, image.size) for image in found.images] == [
        ("b.png", SIZE),
        ("p2/c.png", SIZE),
    ]
    assert found.images[1].boxes.shape == (0, 4)


BOMB = '<!DOCTYPE a [<!ENTITY b "{}"><!ENTITY c "{}"><!ENTITY d "{}">]>'.format(
    "x" * 1000, "&b;" * 1000, "&c;" * 1000
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused_in_any_encoding_before_it_is_expanded(
    tmp_path, images, encoding
):
    text = voc_xml("&d;", head=f'<?xml version="1.0" encoding="{encoding}"?>{BOMB}')
    file = tmp_path / "bomb.xml"
    file.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"bomb\.xml: the XML declares a document type"):
        voc.read_voc(file, images, Naming())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (voc_xml("a.png", ("disc", (30, 2, 1, 10))), "ends before it begins"),
        (voc_xml("a.png", ("disc", ("nan", 2, 1, 10))), "four finite numbers"),
        (voc_xml("a.png", ("disc", (1, 2, 30, "1,5"))), "<ymax> must be a number of px"),
        (voc_xml("a.png", ("", (1, 2, 30, 10))), "object 1 has no <name>"),
        (voc_xml("", ("disc", (1, 2, 30, 10))), "no <filename>"),
        (voc_xml("../images/a.png"), "is not below"),
        (voc_xml("p2/../../images/a.png"), "is not below"),
        (voc_xml(r"..\a.png"), "is not below"),
        (voc_xml("C:a.png"), "is not below"),
        (voc_xml("/etc/hostname"), "is not below"),
        (voc_xml("p2"), "there is no picture p2"),
        ("", "broken XML"),
        ("<annotation><object/></annotation>", "object 1 has no <name>"),
        (
            "<annotation><object><name>a</name></object></annotation>",
            "a has neither a <bndbox> nor a <polygon>",
        ),
    ],
)
def test_a_wrong_xml_file_is_named_and_said_what_to_do_about(tmp_path, images, text, message):
    with pytest.raises(DataError, match=rf"0\.xml.*{message}"):
        voc.read_voc(write_voc(tmp_path, text), images, Naming())


def test_two_files_of_one_picture_and_an_empty_folder_are_refused(tmp_path, images):
    with pytest.raises(DataError, match="no picture with markup"):
        voc.read_voc(write_voc(tmp_path), images, Naming())
    folder = write_voc(tmp_path, voc_xml("a.png"), voc_xml("./a.png"))
    with pytest.raises(DataError, match=r"more than one entry: a\.png"):
        voc.read_voc(folder, images, Naming())


# JSON lists


def write_list(tmp_path, entries):
    file = tmp_path / "markup.json"
    file.write_text(json.dumps(entries))
    return file


def entry(name, *marks, **more):
    marks = [{"label": label, "bbox": box} for label, box in marks]
    return {"img_path": name, "annotation": marks, **more}


def test_the_published_list_has_healthy_1_and_sick_2(tmp_path, images):
    marks = [(1, [1, 2, 30, 10]), (2, [1, 12, 30, 20])]
    file = write_list(tmp_path, [entry("a.png", *marks, patient=12), entry("p2/c.png")])
    found = listed.read_listed(file, images, listed.PUBLISHED)
    assert found.classes == ("healthy", "sick")
    assert rows(found.images[0]) == [("healthy", [1, 2, 30, 10]), ("sick", [1, 12, 30, 20])]
    assert found.images[0].keys["patient"] == "12"
    assert found.images[1].boxes.shape == (0, 4)


def test_paths_of_another_machine_are_refused_until_their_start_is_stripped(tmp_path, images):
    file = write_list(tmp_path, [entry("/data/of/them/a.png"), entry(str(images / "b.png"))])
    with pytest.raises(DataError, match=r"entry 0: '/data/of/them/a\.png' is not below"):
        listed.read_listed(file, images, listed.PUBLISHED)
    found = listed.read_listed(file, images, listed.PUBLISHED, strip="/data/of/them")
    assert [image.name for image in found.images] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"images": []}, "needs a list"),
        ([], "no picture with markup"),
        ([{"img_path": "a.png"}], "entry 0: needs"),
        (["a.png"], "entry 0: needs"),
        ([entry("a.png"), entry("a.png")], "more than one entry"),
        ([entry("a.png", (3, [1, 2, 3, 4]))], r"\(a\.png\): no class for the label '3'"),
        ([entry("a.png", (1, [10, 20, 5, 6]))], "not x, y, width, height"),
        ([entry("a.png", (1, [1, 2, 3]))], "four finite numbers"),
        ([entry("a.png", (1, [1, 2, 3, None]))], "four finite numbers"),
        ([entry("a.png", (1, [1, 2, 3, float("nan")]))], "four finite numbers"),
        ([entry("a.png", (1, "1234"))], "four finite numbers"),
        ([entry("")], "is not below"),
    ],
)
def test_a_wrong_list_is_refused_with_its_entry_and_reason(tmp_path, images, entries, message):
    with pytest.raises(DataError, match=rf"markup\.json.*{message}"):
        listed.read_listed(write_list(tmp_path, entries), images, listed.PUBLISHED)


@pytest.mark.parametrize("content", [b"[{", b"\xff\xfe", b"[" * 200_000])
def test_a_file_that_is_not_json_is_refused(tmp_path, images, content):
    (tmp_path / "markup.json").write_bytes(content)
    with pytest.raises(DataError, match="not a JSON file"):
        listed.read_listed(tmp_path / "markup.json", images, listed.PUBLISHED)


# Masks


def drawing():
    """Two discs that touch by a corner, a speck, a vertebra, and something left out."""
    mask = np.zeros((40, 60), np.uint8)
    mask[2:6, 10:20] = 2
    mask[6:9, 20:30] = 2
    mask[20, 50] = 2
    mask[10:30, 5:15] = 1
    mask[:, 59] = 3
    return mask


EXPECTED = [
    ("vertebra", [5, 10, 15, 30]),
    ("disc", [10, 2, 20, 6]),
    ("disc", [20, 6, 30, 9]),
]
NAMES = Naming(classes={"1": "vertebra", "2": "disc", "3": None})


def save_mask(file, mask):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".png":
        Image.fromarray(mask).save(file)
    else:
        shape = mask.T[..., None] if file.suffix == ".gz" else mask.T
        nib.save(nib.Nifti1Image(shape, np.eye(4)), file)


@pytest.mark.parametrize("ending", [".png", ".nii", ".nii.gz"])
def test_connected_parts_of_a_mask_are_boxes_of_their_edges(tmp_path, images, ending):
    save_mask(tmp_path / f"masks/p2/c{ending}", drawing())
    found = masks.read_masks(tmp_path / "masks", images, NAMES)
    assert [image.name for image in found.images] == ["p2/c.png"]
    assert rows(found.images[0]) == EXPECTED
    assert found.classes == ("vertebra", "disc")
    assert [str(note) for note in found.notes] == [
        "1 parts of less than 20 px left out: p2/c.png",
        "2 pictures without a mask left out: a.png, b.png",
    ]


def test_without_names_values_are_classes_in_the_order_of_numbers(tmp_path, images):
    mask = np.zeros((40, 60), np.uint16)
    mask[:5, :5], mask[10:15, :5] = 300, 9
    save_mask(tmp_path / "masks/a.png", mask)
    assert masks.read_masks(tmp_path / "masks", images, Naming()).classes == ("9", "300")


def test_a_palette_mask_holds_its_indices(tmp_path, images):
    image = Image.fromarray(drawing()).convert("P")
    image.putpalette([200, 0, 0] * 256)
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks/a.png")
    assert rows(masks.read_masks(tmp_path / "masks", images, NAMES).images[0]) == EXPECTED


@pytest.mark.parametrize(
    ("name", "mask", "message"),
    [
        ("a.png", drawing().T.copy(), r"40 x 60 px, but its picture a\.png has 60 x 40"),
        ("a.png", np.zeros((40, 60, 3), np.uint8), "got a RGB picture"),
        ("d.png", drawing(), r"0 pictures in .* have its name 'd'"),
        ("a.png", drawing() * 2, "no class for the label '4'"),
        ("a.nii", drawing() / np.float32(2), "holds whole numbers"),
        ("a.nii", drawing()[..., None].repeat(2, 2).transpose(1, 0, 2), "needs a single slice"),
    ],
)
def test_a_wrong_mask_is_refused(tmp_path, images, name, mask, message):
    save_mask(tmp_path / "masks" / name, mask)
    if mask.ndim == 3 and name.endswith("nii"):
        nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "masks" / name)
    with pytest.raises(DataError, match=message):
        masks.read_masks(tmp_path / "masks", images, NAMES)


@pytest.mark.parametrize("name", ["a.png", "a.nii", "a.nii.gz"])
def test_a_cut_off_mask_is_refused(tmp_path, images, name):
    file = tmp_path / "masks" / name
    save_mask(file, drawing())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"{re.escape(name)}: cannot be read"):
        masks.read_masks(tmp_path / "masks", images, NAMES)


# COCO with grades


def grades(pfirrmann=1, narrowing=0, bulging=0, herniation=0, **more):
    return {
        "Pfirrman grade": pfirrmann,
        "Disc narrowing": narrowing,
        "Disc bulging": bulging,
        "Disc herniation": herniation,
        "Modic": 3,
        "Spondylolisthesis": 1,
        **more,
    }


def write_coco(tmp_path, marks, **changes):
    names = ("a.png", "b.png", "p2/c.png")
    sizes = {"width": SIZE[0], "height": SIZE[1]}
    entries = [{"id": 7 + i, "file_name": n, "patient": i, **sizes} for i, n in enumerate(names)]
    annotations = [{"image_id": i, "bbox": [1, 2, 30, 10], **more} for i, more in marks]
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": entries, "annotations": annotations} | changes))
    return file


@pytest.mark.parametrize(
    ("graded_as", "sick"),
    [
        ({}, False),
        ({"pfirrmann": 3}, False),
        ({"pfirrmann": 4}, True),
        ({"pfirrmann": 5}, True),
        ({"narrowing": 1}, True),
        ({"bulging": 1}, True),
        ({"herniation": 1}, True),
    ],
)
def test_a_disc_is_sick_by_pfirrmann_4_or_any_of_three_findings(graded_as, sick):
    assert graded.is_sick("", grades(**graded_as)) is sick


def test_images_with_an_ungraded_disc_are_left_out_and_named(tmp_path, images):
    partly = grades()
    partly["Disc bulging"] = None
    marks = [
        (7, {"grades": grades(5)}),
        (7, {"grades": grades(), "bbox": [1, 20, 59, 5]}),
        (7, {"iscrowd": 1}),
        (8, {"grades": grades()}),
        (8, {}),
        (9, {"grades": partly}),
    ]
    found = graded.read_graded(write_coco(tmp_path, marks), images)
    assert [image.name for image in found.images] == ["a.png"]
    assert rows(found.images[0]) == [("sick", [1, 2, 31, 12]), ("healthy", [1, 20, 60, 25])]
    assert found.images[0].keys["patient"] == "0"
    assert [str(note) for note in found.notes] == [
        "2 images without grades of every box left out: b.png, p2/c.png",
        "1 crowds left out: a.png",
    ]


@pytest.mark.parametrize(
    ("marks", "changes", "message"),
    [
        ([(99, {"grades": grades()})], {}, "image_id is none of its images"),
        ([(7, {"grades": grades(6)})], {}, r"must be one of \[1, 2, 3, 4, 5\], got 6"),
        ([(7, {"grades": grades(narrowing=2)})], {}, r"must be one of \[0, 1\], got 2"),
        ([(7, {"grades": grades(**{"disc NARROWING": 1})})], {}, "could all be the narrowing"),
        ([(7, {"grades": grades(), "bbox": [1, 2, -3, 4]})], {}, "ends before it begins"),
        ([(7, {"grades": grades(), "bbox": [1, 2, 3]})], {}, "x, y, width, height"),
        ([(7, {"grades": grades(), "bbox": "abcd"})], {}, "four finite numbers|width, height"),
        ([], {"images": []}, "no picture with markup"),
        ([], {"images": 3}, "not a COCO file"),
        ([], {"images": [{"id": 1, "file_name": "a.png"}] * 2}, "two images have one id"),
        ([(i, {}) for i in (7, 8, 9)], {}, "no picture with markup"),
    ],
)
def test_a_wrong_coco_file_is_refused(tmp_path, images, marks, changes, message):
    with pytest.raises(DataError, match=rf"instances\.json.*({message})"):
        graded.read_graded(write_coco(tmp_path, marks, **changes), images)


# Names of classes


def names_file(tmp_path, text):
    file = tmp_path / "names.yaml"
    file.write_text(text)
    return file


def test_the_first_rule_that_fits_counts_and_classes_stand_in_the_order_of_rules(tmp_path):
    text = "classes: {1: low, 'a[1]': low, 'a*': null, '*': high}"
    naming = load_naming(names_file(tmp_path, text), Naming())
    found = [naming.class_of("", label) for label in ("1", "a[1]", "ab", "b")]
    assert found == ["low", "low", None, "high"]
    assert naming.names({"high"}) == ("low", "high")


def test_an_unknown_label_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(DataError, match="'shejnyj-zdorovy', did you mean 'shejnyj-zdorovyj'"):
        Naming(classes={"shejnyj-zdorovyj": "healthy"}).class_of("x", "shejnyj-zdorovy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classs: {}", "no key 'classs', did you mean 'classes'"),
        ("[1, 2]", "needs at least one of the keys"),
        ("", "needs at least one of the keys"),
        ("classes: [a]", "classes is a mapping `label: name`"),
        ("classes: {disc: yes}", "put words such as yes and no in quotes"),
        ("classes: {yes: disc}", "put words such as yes and no in quotes"),
        ("classes: {disc: 2}", "text or null, got 'disc': 2"),
        ("classes: {", "not a YAML file"),
        ("classes: !!python/name:os.system {}", "not a YAML file"),
    ],
)
def test_a_wrong_file_of_names_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=rf"names\.yaml: .*{message}"):
        load_naming(names_file(tmp_path, text), Naming())
