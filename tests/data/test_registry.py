"""The registry: the vendored files are intact, and nothing wrong is ever handed out."""

import functools
import hashlib
import http.server
import threading

import pytest

from papertwin.data import registry
from papertwin.data.registry import Registry
from papertwin.errors import DataError

CONTENT = b"x y z\n1 2 3\n"
SHA, SIZE = hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)


def write_registry(folder, *tables):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "registry.toml").write_text("\n".join(tables), encoding="utf-8")
    return Registry(folder)


def vendored(sha=SHA, size=SIZE, extra=""):
    return (
        '[toy]\ntitle = "Toy"\nkind = "vendored"\nlicence = "MIT"\nnotice = "toy/LICENSE"\norigin = "made here"\n'
        f'prepare = "prepare/toy.py"\n{extra}'
        f'[[toy.files]]\npath = "toy/cloud.txt"\nsha256 = "{sha}"\nbytes = {size}\n'
    )


def optional(url="https://example.org/big", sha=SHA):
    return (
        f'[big]\ntitle = "Big"\nkind = "optional"\nlicence = "non-commercial"\nurl = "{url}"\nfolder = "big_set"\n'
        f'note = "Unpack velodyne/ here."\n[[big.files]]\npath = "big.bin"\nsha256 = "{sha}"\n'
    )


@pytest.fixture
def toy(tmp_path):
    reg = write_registry(tmp_path / "data", vendored())
    (tmp_path / "data/toy").mkdir()
    (tmp_path / "data/toy/cloud.txt").write_bytes(CONTENT)
    (tmp_path / "data/toy/LICENSE").write_text("MIT")
    return reg


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve tmp_path/served on the loopback interface; yields its address and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Keep the test output clean."""


def test_every_vendored_file_of_the_repository_is_intact():
    assert registry.check() == []
    assert registry.names("vendored"), "the repository vendors at least one set"


def test_every_vendored_file_is_registered():
    reg = registry.default()
    for name in reg.names("vendored"):
        listed = {entry.path for entry in reg.describe(name).files} | {reg.describe(name).notice}
        present = {
            path.relative_to(reg.folder).as_posix()
            for path in (reg.folder / name).rglob("*")
            if path.is_file() and path.name != "README.md"
        }
        assert present == listed


def test_path_takes_the_name_with_or_without_its_folder(toy):
    assert toy.path("toy", "cloud.txt") == toy.path("toy", "toy/cloud.txt") == toy.folder / "toy/cloud.txt"
    assert toy.sha256s("toy") == {"toy/cloud.txt": SHA}
    assert toy.check() == []


def test_corrupted_file_is_refused_with_checksums_and_remedy(toy):
    changed = CONTENT.replace(b"3", b"4")
    toy.path("toy", "cloud.txt")  # seen intact once: the next change must still be noticed
    (toy.folder / "toy/cloud.txt").write_bytes(changed + b"!")
    with pytest.raises(DataError) as caught:
        toy.path("toy", "cloud.txt")
    message = str(caught.value)
    for part in ("cloud.txt", SHA, hashlib.sha256(changed + b"!").hexdigest(), f"{SIZE} bytes"):
        assert part in message
    assert "git checkout -- data/toy/cloud.txt" in message
    assert "prepare/toy.py" in message
    with pytest.raises(DataError):
        toy.sha256s("toy")
    assert len(toy.check("toy")) == 1


def test_same_size_corruption_is_found(toy):
    (toy.folder / "toy/cloud.txt").write_bytes(CONTENT.replace(b"1", b"7"))
    with pytest.raises(DataError, match="not the registered one"):
        toy.path("toy", "cloud.txt")


def test_truncated_file_tells_both_sizes(toy):
    (toy.folder / "toy/cloud.txt").write_bytes(CONTENT[:5])
    with pytest.raises(DataError, match=rf"{SIZE} bytes.*5 bytes"):
        toy.path("toy", "cloud.txt")


def test_restored_file_is_accepted_again(toy):
    place = toy.folder / "toy/cloud.txt"
    place.write_bytes(b"broken")
    assert toy.check()
    place.write_bytes(CONTENT)
    assert toy.path("toy", "cloud.txt") == place


def test_missing_file_and_missing_notice_are_problems(toy):
    (toy.folder / "toy/cloud.txt").unlink()
    (toy.folder / "toy/LICENSE").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        toy.path("toy", "cloud.txt")
    problems = toy.check()
    assert len(problems) == 2
    assert "licence notice" in problems[1]


def test_checksum_is_computed_once_per_version_of_a_file(toy, monkeypatch):
    calls = []
    real = registry.files.sha256
    monkeypatch.setattr(registry.files, "sha256", lambda path: calls.append(path) or real(path))
    for _ in range(3):
        toy.path("toy", "cloud.txt")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("call", "hint"), [("describe", "'toy'"), ("check", "'toy'"), ("sha256s", "'toy'"), ("present", "'toy'")]
)
def test_unknown_set_suggests_the_nearest(toy, call, hint):
    with pytest.raises(DataError, match=f"Did you mean {hint}"):
        getattr(toy, call)("toi")


def test_unknown_file_suggests_the_nearest(toy):
    with pytest.raises(DataError, match=r"Did you mean 'toy/cloud\.txt'"):
        toy.path("toy", "toy/clowd.txt")


def test_missing_optional_set_says_what_is_expected_where(tmp_path, monkeypatch):
    reg = write_registry(tmp_path / "data", optional())
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError) as caught:
        reg.folder_of("big")
    message = str(caught.value)
    for part in (str(tmp_path / "mine/big_set"), "velodyne/", "https://example.org/big", "PAPERTWIN_DATA", "big.bin"):
        assert part in message
    assert reg.check() == []


def test_optional_set_is_found_in_the_users_folder_and_checked(tmp_path, monkeypatch):
    reg = write_registry(tmp_path / "data", optional())
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path / "mine"))
    folder = tmp_path / "mine/big_set"
    folder.mkdir(parents=True)
    (folder / "big.bin").write_bytes(CONTENT)
    assert reg.folder_of("big") == folder
    assert reg.path("big", "big.bin") == folder / "big.bin"
    (folder / "big.bin").write_bytes(b"other")
    assert SHA in reg.check("big")[0]


def test_checksums_of_an_optional_set_are_those_of_the_files_that_are_there(tmp_path, monkeypatch):
    reg = write_registry(tmp_path / "data", optional())
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path / "mine"))
    assert reg.sha256s("big") == {}
    (tmp_path / "mine/big_set").mkdir(parents=True)
    assert reg.sha256s("big") == {}
    (tmp_path / "mine/big_set/big.bin").write_bytes(CONTENT)
    assert reg.sha256s("big") == {"big.bin": SHA}
    (tmp_path / "mine/big_set/big.bin").write_bytes(b"other")
    with pytest.raises(DataError, match="not the registered one"):
        reg.sha256s("big")


def test_an_optional_set_is_present_when_its_files_are_there_whatever_they_hold(tmp_path, monkeypatch):
    reg = write_registry(tmp_path / "data", optional())
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path / "mine"))
    folder = tmp_path / "mine/big_set"
    assert not reg.present("big")
    folder.mkdir(parents=True)
    (folder / "unrelated.txt").touch()
    assert not reg.present("big")
    (folder / "big.bin").write_bytes(b"other")
    assert reg.present("big")


def test_an_optional_set_without_a_list_of_files_is_present_when_its_folder_holds_something(tmp_path, monkeypatch):
    reg = write_registry(tmp_path / "data", optional().partition("[[big.files]]")[0])
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path / "mine"))
    assert reg.sha256s("big") == {}
    (tmp_path / "mine/big_set").mkdir(parents=True)
    assert not reg.present("big")
    (tmp_path / "mine/big_set/velodyne").mkdir()
    assert reg.present("big")
    assert reg.sha256s("big") == {}


def test_a_vendored_set_is_present_until_a_file_is_missing(toy, monkeypatch):
    monkeypatch.setattr(registry.files, "sha256", lambda path: pytest.fail(f"{path} was read"))
    assert toy.present("toy")
    (toy.folder / "toy/cloud.txt").unlink()
    assert not toy.present("toy")


def test_the_repository_s_sets_answer_whether_they_are_present(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    assert [name for name in registry.names() if registry.present(name)] == registry.names("vendored")
    assert all(registry.sha256s(name) == {} for name in registry.names("optional"))


def test_local_folder_is_the_fallback(tmp_path, monkeypatch):
    monkeypatch.delenv("PAPERTWIN_DATA", raising=False)
    reg = write_registry(tmp_path / "data", optional())
    assert reg.local("big") == tmp_path / "data/local/big_set"


def test_fetch_downloads_and_keeps_an_intact_file(tmp_path, monkeypatch, server):
    address, served = server
    (served / "big.bin").write_bytes(CONTENT)
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path / "mine"))
    reg = write_registry(tmp_path / "data", optional(f"{address}/big.bin"))
    assert (reg.fetch("big") / "big.bin").read_bytes() == CONTENT
    (served / "big.bin").unlink()
    assert reg.fetch("big") == tmp_path / "mine/big_set"  # needs no second download


def test_corrupted_download_never_replaces_a_file(tmp_path, monkeypatch, server):
    address, served = server
    (served / "big.bin").write_bytes(b"a proxy's login page")
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path / "mine"))
    reg = write_registry(tmp_path / "data", optional(f"{address}/big.bin"))
    target = tmp_path / "mine/big_set/big.bin"
    with pytest.raises(DataError, match="not the registered file"):
        reg.fetch("big")
    assert not target.exists()
    target.write_bytes(b"what the user had")
    with pytest.raises(DataError, match="left as it was"):
        reg.fetch("big")
    assert target.read_bytes() == b"what the user had"
    assert [path.name for path in target.parent.iterdir()] == ["big.bin"], "no temporary file stays behind"


def test_failed_download_is_a_clear_error(tmp_path, monkeypatch, server):
    address, _ = server
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path / "mine"))
    reg = write_registry(tmp_path / "data", optional(f"{address}/big.bin"))
    with pytest.raises(DataError, match="put the file there by hand"):
        reg.fetch("big")


def test_fetch_without_checksum_or_of_a_vendored_set_is_refused(tmp_path, monkeypatch, toy):
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path / "mine"))
    reg = write_registry(tmp_path / "other", optional(sha=""))
    with pytest.raises(DataError, match="known checksum"):
        reg.fetch("big")
    with pytest.raises(DataError, match="git checkout"):
        toy.fetch("toy")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[toy\n", "not valid TOML"),
        (vendored(sha="abc"), r"files\.0\.sha256"),
        (vendored(size=0), "without sha256 or bytes"),
        (vendored(extra='colour = "red"\n'), "colour"),
        (vendored().replace("toy/cloud.txt", "../cloud.txt"), "stay in its folder"),
        (vendored().replace("toy/cloud.txt", "/etc/cloud.txt"), "stay in its folder"),
        (optional().replace('folder = "big_set"\n', ""), "needs folder"),
        ('[toy]\ntitle = "Toy"\n', "kind"),
    ],
)
def test_malformed_registry_names_the_field(tmp_path, text, names):
    with pytest.raises(DataError, match=names):
        write_registry(tmp_path / "data", text)


def test_missing_registry_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"registry\.toml is missing"):
        Registry(tmp_path)
