"""Where a secret stands that should stand nowhere any more."""

from __future__ import annotations

from playwright.async_api import Page

PLACES = """async () => ({
    document: document.documentElement.outerHTML,
    templates: [...document.querySelectorAll("template")].map(one => one.innerHTML).join(),
    fields: [...document.querySelectorAll("input, textarea, output, select")].map(one => one.value).join(),
    selection: String(getSelection()),
    storage: JSON.stringify([{...localStorage}, {...sessionStorage}, history.state, name, document.cookie]),
    databases: JSON.stringify(await indexedDB.databases()),
    caches: (await caches.keys()).join(),
    requests: performance.getEntries().map(one => one.name).join(),
    address: location.href,
})"""


async def find_leftovers(page: Page, secret: str) -> list[str]:
    """On the page, in what the browser keeps for it, or in where it has been."""
    places = await page.evaluate(PLACES)
    client = await page.context.new_cdp_session(page)
    history = await client.send("Page.getNavigationHistory")
    places["history"] = str(history["entries"])
    places["cookies"] = str(await page.context.cookies())
    await client.detach()
    assert places["databases"] == "[]"
    assert places["caches"] == ""
    return [place for place, text in places.items() if secret[20:50] in text]
