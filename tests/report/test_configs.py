"""The configs of a published dataset and the files they are made of."""

from im_datasets.report.configs import SMALL_BYTES, Published


def test_published_knows_a_small_file_by_both_digests(tmp_path):
    # git hash-object of a file that holds "hello\n"
    assert Published.of(b"hello\n").git_sha1 == "ce013625030ba8dba906f756967f9e9ca394464a"
    (tmp_path / "small").write_bytes(b"hello\n")
    assert Published.of_file(tmp_path / "small") == Published.of(b"hello\n")
    (tmp_path / "big").write_bytes(b"\0" * (SMALL_BYTES + 1))
    big = Published.of_file(tmp_path / "big")
    assert big.git_sha1 is None
    assert big.sha256 == Published.of(b"\0" * (SMALL_BYTES + 1)).sha256
