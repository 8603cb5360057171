"""`/readyz` over the service's own connections."""

import psycopg


def test_a_look_opens_no_connection(make_api, clock, monkeypatch):
    api, connect, opened = make_api(), psycopg.connect, []
    api.app.relay.stop()
    assert api.get("//readyz").status_code == 200
    monkeypatch.setattr(psycopg, "connect", lambda *given, **more: opened.append(given) or connect(*given, **more))
    clock.advance(2)  # so that the first result is too old
    assert api.get("//readyz").status_code == 200
    assert opened == []
