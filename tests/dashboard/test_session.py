"""Signing in and out."""

from __future__ import annotations

from typing import Any


def test_a_wrong_key_says_what_is_wrong(page: Any) -> None:
    """A key the server does not know is answered with what to check, and signs nobody in."""
    page.goto("/")
    page.get_by_label("API key").fill("fl_00000000_wrong")
    page.get_by_role("button", name="Sign in").click()
    alert = page.get_by_role("alert").filter(has_text="does not know this key")
    alert.wait_for()
    assert "copied whole" in alert.inner_text()
    assert page.context.cookies() == []


def test_a_key_signs_in(page: Any, server: Any) -> None:
    """Pasting the right key leads to the projects, by a cookie that scripts cannot read."""
    page.goto("/")
    page.get_by_label("API key").fill(f"  {server.key}\n")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()
    [cookie] = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert page.evaluate("document.cookie") == ""


def test_signing_in_keeps_the_address(page: Any, server: Any) -> None:
    """Who follows a colleague's link and has to sign in first lands where the link leads."""
    page.goto("/w/nobody/nothing?q=x")
    page.get_by_label("API key").fill(server.key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="There is no such project").wait_for()
    assert page.url.endswith("/w/nobody/nothing?q=x")


def test_a_key_in_the_address_is_used_and_removed(page: Any, server: Any) -> None:
    """`#key=…` signs in and is gone from the address bar and from the history."""
    page.goto(f"/#key={server.key}")
    page.get_by_role("button", name="Sign out").wait_for()
    assert "#" not in page.url
    page.reload()
    page.get_by_role("button", name="Sign out").wait_for()
    assert page.evaluate("history.length") <= 2
    assert server.key not in page.content()


def test_a_wrong_key_in_the_address_is_removed_too(page: Any) -> None:
    """A key of another server does not stay in the address bar, and the reader is told."""
    page.goto("/#key=fl_00000000_wrong")
    page.get_by_role("alert").filter(has_text="does not know this key").wait_for()
    assert "#" not in page.url


def test_signing_out_ends_the_session_on_the_server(signed_in: Any) -> None:
    """After "Sign out" the cookie of before opens nothing any more."""
    before = signed_in.context.cookies()
    signed_in.get_by_role("button", name="Sign out").click()
    signed_in.get_by_label("API key").wait_for()
    signed_in.context.add_cookies(before)
    assert signed_in.request.get("/api/v1/me").status == 401


def test_an_empty_server_says_how_to_begin(page: Any, server: Any) -> None:
    """Who has no runs yet is shown the commands to copy, with this server's own address in them."""
    page.goto(f"/#key={server.create_user('newcomer')}")
    page.get_by_text(f"flightlog login {server.url}", exact=True).wait_for()
    page.get_by_text("flightlog sync", exact=True).wait_for()


def test_the_theme_is_kept(signed_in: Any) -> None:
    """The toggle goes from the system's theme to light to dark, and a reload keeps the choice."""
    for _ in ("light", "dark"):
        signed_in.get_by_role("button", name="Theme").click()
    dark = signed_in.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    signed_in.reload()
    signed_in.get_by_role("button", name="Theme: dark").wait_for()
    assert signed_in.evaluate("getComputedStyle(document.documentElement).backgroundColor") == dark
    signed_in.get_by_role("button", name="Theme").click()
    signed_in.get_by_role("button", name="Theme: system").wait_for()
    assert signed_in.evaluate("getComputedStyle(document.documentElement).backgroundColor") != dark
