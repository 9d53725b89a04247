"""Images named or held by tables: pairs with texts, folders with metadata, Parquet."""

import json

import numpy as np
import pyarrow
import pytest
from data_samples import TINY, picture, save
from pyarrow import parquet
from test_data_texts import IDS, MASK, model, text, write  # noqa: F401

from lampq.adapters.data import read_data
from lampq.core.values.errors import AdapterError

BOTH = (TINY, IDS, MASK)


def pixels(seed):
    """What a picture becomes as a sample."""
    return picture(seed).transpose(2, 0, 1).astype(np.float32) * np.float32(1 / 255)


def rows(folder, count=5, **more):
    """Rows of images that are saved, with texts of several lengths."""
    for index in range(count):
        save(folder / "pictures" / f"{index}.png", picture(index))
    lengths = (30, 3, 9, 30, 4)
    return [
        {
            "image": f"pictures/{index}.png",
            "text": text(lengths[index]),
            **{k: v[index] for k, v in more.items()},
        }
        for index in range(count)
    ]


def as_text(name, table):
    if name.endswith(".csv"):
        lines = [",".join(table[0]), *(",".join(map(str, row.values())) for row in table)]
        return "\n".join(lines)
    return "\n".join(map(json.dumps, table))


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl"])
def test_every_image_stays_with_its_text(model, name):
    table = rows(model.parent, label=["b", "a", "a", "b", "a"])
    data = read_data(write(model, name, as_text(name, table)), input_specs=BOTH, model=model)
    assert (data.kind, len(data), data.class_names) == ("pairs", 5, ("a", "b"))
    labels, number = data.labels(), 0
    for group in data.inputs():
        for image, mask in zip(group["x"], group["attention_mask"], strict=True):
            seed = int(data.names[number].removeprefix("pictures/").removesuffix(".png"))
            np.testing.assert_allclose(image, pixels(seed), rtol=1e-6)
            assert mask.sum() == len(table[seed]["text"].split()) + 2
            assert labels[number] == (table[seed]["label"] == "b")
            number += 1
    assert number == 5
    assert sum(batch.samples for batch in data.batches(2)) == 5
    assert read_data(model.parent / name, input_specs=BOTH, model=model).summary() == data.summary()


def test_a_folder_with_metadata_has_the_labels_of_its_table(tmp_path):
    table = [{"file_name": row["image"], "label": index % 2} for index, row in enumerate(rows(tmp_path))]
    (tmp_path / "metadata.jsonl").write_text(as_text("metadata.jsonl", table))
    data = read_data(tmp_path, input_spec=TINY)
    assert data.labels().tolist() == [0, 1, 0, 1, 0]
    assert data.names == tuple(f"pictures/{index}.png" for index in range(5))
    np.testing.assert_allclose(data.inputs()["x"][3], pixels(3), rtol=1e-6)


def test_parquet_holds_images_as_hugging_face_writes_them(model):
    table = rows(model.parent)
    images = [{"bytes": (model.parent / row["image"]).read_bytes(), "path": "same.png"} for row in table]
    columns = {"image": images, "text": [row["text"] for row in table], "label": [0, 1, 2, 3, 4]}
    parquet.write_table(pyarrow.table(columns), model.parent / "train.parquet")
    alone = read_data(model.parent / "train.parquet", input_spec=TINY)
    assert alone.labels().tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(alone.inputs()["x"][2], pixels(2), rtol=1e-6)
    pairs = read_data(model.parent / "train.parquet", input_specs=BOTH, model=model)
    for group in pairs.inputs():
        for image, mask in zip(group["x"], group["attention_mask"], strict=True):
            (seed,) = (s for s in range(5) if np.allclose(image, pixels(s)))
            assert mask.sum() == len(table[seed]["text"].split()) + 2
    texts = read_data(model.parent / "train.parquet", input_specs=(IDS, MASK), model=model)
    assert (texts.kind, len(texts)) == ("texts", 5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "t.jsonl",
            '{"image": "a.png", "text": "w1"}\n{"text": "w2"}',
            "line 2 has text; an image is called",
        ),
        ("t.jsonl", '{"image": "a.png", "text": " "}', "line 1 holds an empty text"),
        ("t.jsonl", '{"image": "a.png"}', "rows hold no text"),
        ("t.jsonl", '{"image": "none.png", "text": "w1"}', "none.png: cannot be read"),
        ("t.jsonl", '{"image": 3, "text": "w1"}', "line 1 names no image"),
        ("t.csv", "image,text,label\na.png,w1,0\na.png,w2,\n", "the label of row 2 is ''"),
        ("t.parquet", "no table", "no table in Parquet"),
    ],
)
def test_tables_that_cannot_be_are_refused_in_a_line(model, name, content, message):
    save(model.parent / "a.png", picture())
    path = write(model, name, content)
    with pytest.raises(AdapterError, match=message) as caught:
        read_data(path, input_specs=BOTH, model=model).inputs()
    assert "\n" not in str(caught.value)


def test_texts_alone_with_a_column_of_images_are_texts(model):
    path = write(model, "t.jsonl", '{"image": "none.png", "text": "w1 w2"}')
    assert read_data(path, input_specs=[IDS, MASK], model=model).kind == "texts"
