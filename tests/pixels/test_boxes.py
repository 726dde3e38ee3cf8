"""Tables of boxes by their header: places, signs and units of columns are never guessed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dollmaker.pixels.boxes import BoxTable
from dollmaker.pixels.mask_forms import ImageFacts
from dollmaker.runtime.errors import DataError

WIDTH, HEIGHT = 50, 40


def opened(folder: Path, text: str, space: int | None = None) -> BoxTable:
    file = folder / "b.csv"
    file.write_text(text, encoding="utf-8")
    return BoxTable(file, space, "truth")


def mask(table: BoxTable, path: str = "a.png", finding: str = "Mass") -> Any:
    return table.area(ImageFacts(path=path, width=WIDTH, height=HEIGHT), finding)


def area(left: int, top: int, right: int, bottom: int) -> Any:
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[top:bottom, left:right] = True
    return expected


@pytest.mark.parametrize(
    "text",
    [
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Mass,10,20,30,5,,,\n",
        "path,label,x,y,width,height\nx/a.png,Mass,10,20,30,5\n",
        "LEFT,TOP,WIDTH,HEIGHT,FINDING,IMAGE\n10,20,30,5,Mass,a.png\n",
        "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height\n"
        "b,Mass,a big one,x/a.jpg,10,20,30,5,1,1\n",
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\na,Mass,8,R1,10,20,40,25\n",
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,50,40,Mass,10,20,40,25\n",
        "Image,Finding,X Max,X Min,Y Max,Y Min\na,Mass,40,10,25,20\n",
        "image,finding,x1,y1,x2,y2\na,Mass,10,20,40,25\n",
        "image,finding,x0,y0,x1,y1\na,Mass,10,20,40,25\n",
        "image,finding,left,top,right,bottom\na,Mass,10,20,40,25\n",
        "image;finding;bbox_x1;bbox_y1;bbox_x2;bbox_y2\na;Mass;9,8;19,9;40,0;25,2\n",
        "sep=;\nimage;finding;x;y;w;h\na;Mass;10;20;30;5\n",
        "image\tfinding\tx\ty\tw\th\n.\\x\\a.png\tMass\t10\t20\t30\t5\n",
        " image , finding,x,y,w,h\n\n,,,,,\na.png, Mass ,10,20,30,5\n",
    ],
)
def test_columns_are_found_by_their_header(tmp_path: Path, text: str) -> None:
    assert np.array_equal(mask(opened(tmp_path, text)), area(10, 20, 40, 25))


@pytest.mark.parametrize(
    "header",
    [
        "image,finding,a,b,c,d",
        "image,finding,x_center,y_center,width,height",
        "image,finding,x_min,y_min,x_max",
        "image,x,y,w,h",
        "finding,x,y,w,h",
        "10,20,30,5,Mass,a.png",
    ],
)
def test_other_headers_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match=r"header .*image and finding, and x, y, width.*x_min"):
        opened(tmp_path, f"{header}\n{','.join('1' for _ in header.split(','))}\n")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two columns 'X'"):
        opened(tmp_path, "image,finding,x,X,y,w,h\na,Mass,1,2,3,4,5\n")


def test_images_without_a_box_are_unknown(tmp_path: Path) -> None:
    head = "image_id,class_name,x_min,y_min,x_max,y_max\n"
    table = opened(
        tmp_path, head + "a,No finding,,,,\nb,No finding,NaN,NaN,NaN,NaN\nc,Mass,1,1,2,2"
    )
    assert mask(table, "a.png") is None and mask(table, "b.png", "No finding") is None
    assert mask(table, "c.png").sum() == 1 and mask(table, "c.png", "Edema") is None


@pytest.mark.parametrize(
    "row",
    ["a,Mass,1,2,,", "a,Mass,3,2,3,4", "a,Mass,1,4,3,2", ",Mass,1,2,3,4", "a,,1,2,3,4", ",,,,5,",
     "a,Mass,1,2,inf,4", "a,Mass,1e308,1,1e309,4", "a,Mass,1,2,3"],
)  # fmt: skip
def test_lines_that_are_no_box_are_refused(tmp_path: Path, row: str) -> None:
    text = f"image,finding,x1,y1,x2,y2\na,Mass,1,2,3,4\n{row}\n"
    with pytest.raises(DataError, match="line 3: no image, finding, left, top, right and bottom"):
        opened(tmp_path, text)


def test_boxes_of_another_square_are_refused(tmp_path: Path) -> None:
    head = "image,finding,x,y,w,h\n"
    assert mask(opened(tmp_path, head + "a,Mass,90,-0.5,10.9,50", 100))[:20, 45:].all()
    for row in ("a,Mass,90,0,11.5,5", "a,Mass,0,90,5,11.5", "a,Mass,-2,0,5,5"):
        with pytest.raises(DataError, match=r"line 3: .* 100x100 pixels; set truth\.space"):
            opened(tmp_path, f"{head}b,Mass,1,1,2,2\n{row}\n", 100)
    table = opened(tmp_path, head + "a,Mass,30,0,22,5\n")
    with pytest.raises(DataError, match=r"'a\.png' .* 50x40 pixels; set truth\.space"):
        mask(table)


def test_shares_of_the_sides_are_not_taken_for_pixels(tmp_path: Path) -> None:
    text = "image,finding,x1,y1,x2,y2\na,Mass,0.2,0.5,0.8,1.0\n"
    with pytest.raises(DataError, match=r"set truth\.space to 1"):
        opened(tmp_path, text, 1024)
    assert np.array_equal(mask(opened(tmp_path, text, 1)), area(10, 20, 40, 40))
    with pytest.raises(DataError, match=r"outside of 1x1 pixels"):
        opened(tmp_path, text + "a,Mass,0,0,1.5,1\n", 1)


def test_images_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    head = "image,finding,x,y,w,h\n"
    table = opened(tmp_path, head + "v/p1/s/a.jpg,Mass,1,1,2,2\nv/p2/s/a.jpg,Mass,5,5,3,3\n")
    assert mask(table, "CheXpert/v/p1/s/a.jpg").sum() == 4
    assert mask(table, "CheXpert/v/p2/s/a.jpg").sum() == 9
    assert mask(table, "CheXpert/v/p3/s/a.jpg") is None
    bare = opened(tmp_path, head + "a.jpg,Mass,1,1,2,2\n")
    mask(bare, "p1/a.jpg")
    with pytest.raises(DataError, match="fits the images"):
        mask(bare, "p2/a.jpg")


def test_numbers_with_commas(tmp_path: Path) -> None:
    head = "image;finding;x1;y1;x2;y2\n"
    table = opened(tmp_path, head + "a;Mass;9,875;19,9;40,125;25,2\n", 100)
    assert np.array_equal(mask(table), area(5, 8, 20, 10))  # as 9.875 to 40.125 of 100
    with pytest.raises(DataError, match="line 2: no image, finding, left"):
        opened(tmp_path, head + "a;Mass;1,024;2;1,500;3\n")  # or is it more than a thousand?


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b"image,finding\xe9,x\n1,2,3\n", b""])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "b.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.csv is not readable"):
        BoxTable(file, 1024, "truth")
    with pytest.raises(DataError, match=r"does not exist; correct truth\.file"):
        BoxTable(tmp_path / "none.csv", 1024, "truth")


def test_findings_are_told_in_any_case(tmp_path: Path) -> None:
    table = opened(tmp_path, "image,finding,x,y,w,h\na.png,mass,10,20,30,5\na.png,MASS,0,0,2,2\n")
    assert np.array_equal(mask(table), area(10, 20, 40, 25) | area(0, 0, 2, 2))


def test_shares_are_not_pixels_of_the_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shares of the image's sides .* set truth\.space to 1"):
        opened(tmp_path, "image,finding,x,y,w,h\na.png,Mass,.1,.2,.3,.05\n")


@pytest.mark.parametrize(("last", "fault"), [(WIDTH, True), (900, False)])
def test_boxes_of_small_images_were_not_drawn_on_a_large_square(
    tmp_path: Path, last: int, fault: bool
) -> None:
    rows = [f"{number}.png,Mass,{number},3,{WIDTH},30" for number in range(7)]
    rows.append(f"7.png,Mass,1,3,{last},30")
    header = "image,finding,x_min,y_min,x_max,y_max"
    table = opened(tmp_path, "\n".join([header, *rows]) + "\n", 1024)
    for number in range(7):
        mask(table, f"{number}.png")
    assert not table.fault()  # too few to know
    mask(table, "7.png")
    assert ("in pixels of the images" in table.fault()) == fault
    assert [table.has(ImageFacts(path=path)) for path in ("7.png", "8.png")] == [True, False]
