"""LRE is fetched from where it is published, file by file verified: here from a local server."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import stat
import threading

import pytest

import relation_neurons as rn
from relation_neurons.errors import RelationFormatError, UnknownRelationError
from relation_neurons.relations import lre

FILES = {
    f"factual/r{i}.json": json.dumps(
        {
            "name": f"relation {i}",
            "prompt_templates": ["{} is in"],
            "prompt_templates_zs": ["Where is {}? It is in"],
            "properties": {},
            "samples": [{"subject": f"s{j}", "object": f"o{j}"} for j in range(4)],
        }
    ).encode()
    for i in range(3)
}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves three files as the published ones; gives what it serves, to be spoilt, and the requests."""
    served, asked = dict(FILES), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/")
            asked.append(name)
            body = served.get(name)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    listed = {
        "repository": "someone/relations",
        "commit": "c0ffee" * 6,
        "folder": "data",
        "sha256": {name: hashlib.sha256(body).hexdigest() for name, body in FILES.items()},
    }
    monkeypatch.setattr(lre, "_listed", lambda: listed)
    monkeypatch.setenv("RELATION_NEURONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RELATION_NEURONS_LRE_URL", f"http://127.0.0.1:{http_server.server_port}/")
    yield served, asked
    http_server.shutdown()
    http_server.server_close()


def test_fetched_files_are_kept_verified_and_read(server):
    _, asked = server
    with pytest.raises(UnknownRelationError, match="relations fetch lre"):
        rn.load_relations("lre")
    said = []
    folder = rn.fetch_lre(log=said.append)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.json")) == sorted(FILES)
    assert "3 files verified" in said[0]
    assert [r.name for r in rn.load_relations("lre")] == ["r0", "r1", "r2"]
    before = len(asked)
    rn.fetch_lre()
    assert len(asked) == before  # what is there is verified, not fetched again


def test_fetched_files_carry_the_umask(server):
    before = os.umask(0o027)
    try:
        folder = rn.fetch_lre()
    finally:
        os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*.json")} == {0o640}


def test_a_file_that_is_not_the_published_one_is_refused_and_not_kept(server):
    served, _ = server
    served["factual/r1.json"] = b"something else"
    with pytest.raises(RelationFormatError, match=r"r1\.json .* not the published file"):
        rn.fetch_lre()
    folder = lre._default_folder()
    assert (folder / "factual/r0.json").read_bytes() == FILES["factual/r0.json"]
    assert not (folder / "factual/r1.json").exists()
    served.update(FILES)
    (folder / "factual/r0.json").write_bytes(b"damaged since")
    assert rn.fetch_lre() == folder
    assert (folder / "factual/r0.json").read_bytes() == FILES["factual/r0.json"]


def test_offline_it_says_what_to_download_and_where_to_put_it(server, monkeypatch, tmp_path):
    monkeypatch.setenv("RELATION_NEURONS_LRE_URL", "http://127.0.0.1:9/")
    with pytest.raises(RelationFormatError) as caught:
        rn.fetch_lre()
    message = str(caught.value)
    for part in ("someone/relations", "c0ffee", "'data'", str(lre._default_folder())):
        assert part in message
    for name, body in FILES.items():  # put there by hand, as it says
        path = lre._default_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    rn.fetch_lre()
    assert len(rn.load_relations("lre")) == 3


def test_a_missing_file_is_an_error_that_names_it(server):
    served, _ = server
    del served["factual/r2.json"]
    with pytest.raises(RelationFormatError, match=r"r2\.json could not be downloaded"):
        rn.fetch_lre()


def test_the_published_list_is_whole():
    listed = lre._listed()
    assert len(listed["sha256"]) == 47 and len(listed["commit"]) == 40
    assert all(len(digest) == 64 for digest in listed["sha256"].values())
