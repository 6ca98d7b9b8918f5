"""What copies are called."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor_agent.ingest.names import is_pattern, local_names, shown, without_secrets


def test_a_copy_has_the_name_of_its_file() -> None:
    assert local_names(["s3://b/x/part-0", "s3://b/y/part 1.ü"]) == ["part-0", "part 1.ü"]


def test_files_of_one_name_keep_the_folders_that_tell_them_apart() -> None:
    urls = ["s3://b/data/train/x.csv", "s3://b/data/test/x.csv", "s3://b/data/test/y.csv"]
    assert local_names(urls) == ["train/x.csv", "test/x.csv", "test/y.csv"]


def test_the_same_url_twice_is_one_copy() -> None:
    assert local_names(["s3://b/x", "s3://b/x"]) == ["x", "x"]


def test_what_comes_after_a_question_mark_is_no_name_and_no_pattern() -> None:
    url = "https://host/a/data.csv?X-Amz-Signature=secret"
    assert local_names([url]) == ["data.csv"]
    assert not is_pattern(url)
    assert "secret" not in shown(url)
    assert "secret" not in shown("ftp://me:secret@host/x")


@pytest.mark.parametrize(
    "url, told",
    [
        ("https://host/a.csv?sig=secret#x", "https://host/a.csv"),
        ("simplecache::https://host/a.csv?sig=secret", "simplecache::https://host/a.csv"),
        ("zip://a::https://me:secret@host/x?secret", "zip://a::https://me:***@host/x"),
        ("https://secret@host/x", "https://***@host/x"),
        ("sftp://me:se:cr@et@host/x", "sftp://me:***@host/x"),
        ("abfs://container@account/x?y", "abfs://container@account/x?y"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
    ],
)
def test_what_is_shown_of_an_address_has_no_secret(url: str, told: str) -> None:
    assert shown(url) == told
    assert without_secrets(f"no '{url}' there") == f"no '{told}' there"


def test_a_chain_with_a_signed_address_is_one_file_and_its_name_no_secret() -> None:
    url = "simplecache::https://me:secret@host/a/data.csv?sig=secret"
    assert not is_pattern(url)
    assert is_pattern("simplecache::s3://b/data-?.csv")
    assert local_names([url]) == ["data.csv"]
    assert "secret" not in "".join(local_names([url, "https://host/b/data.csv"]))


def test_of_a_chain_the_file_gives_the_name() -> None:
    assert local_names(["zip://in/a.csv::s3://b/x.zip"]) == ["a.csv"]
    assert local_names(["simplecache::s3://b/x.zip"]) == ["x.zip"]


def test_a_folder_and_a_file_under_it_are_refused() -> None:
    with pytest.raises(ValueError, match="two directories"):
        local_names(["s3://b/p/a", "s3://b/p/a/b", "s3://b/q/a"])
    with pytest.raises(ValueError, match="names no file"):
        local_names(["s3://b/folder/"])


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=300), min_size=1, max_size=4))
def test_no_name_leaves_its_folder_or_is_too_long(segments: list[str]) -> None:
    url = "s3://bucket/" + "/".join(segments) + "x"
    other = "s3://bucket/other/" + url.rpartition("/")[2]
    try:
        names = local_names([url, other])
    except ValueError:
        return  # one would be the other's folder
    for name in names:
        assert posixpath.normpath(name) == name
        assert not name.startswith(("/", ".."))
        assert all(0 < len(part.encode()) <= 255 for part in name.split("/"))
        assert "\0" not in name
