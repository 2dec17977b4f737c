"""The looks of a page: two widths, light and dark. Pictures are kept for whoever looks at them one by one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, ViewportSize

PICTURES = Path(os.environ.get("AEGIS_PICTURES", ".venv/pictures"))
SIZES: dict[str, ViewportSize] = {
    "wide": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LEVELS = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
TOO_WIDE = """[document.documentElement, ...document.querySelectorAll("dialog[open]")]
    .some(element => element.scrollWidth > element.clientWidth)"""


async def look(page: Page, name: str, schemes: Sequence[Literal["light", "dark"]] = SCHEMES) -> None:
    """The state that the page is in, in every look: nothing is wider than the window, nor against accessibility at
    level AA."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for size, viewport in SIZES.items():
        await page.set_viewport_size(viewport)
        await page.evaluate("scrollTo(0, 0)")
        for scheme in schemes:
            await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            await _take(page, f"{name}-{size}-{scheme}")
            assert not await page.evaluate(TOO_WIDE), f"{name} is too wide: {size}"
            found = await Axe().run(page, options=LEVELS)
            assert found.violations_count == 0, f"{name}, {size}, {scheme}: {found.generate_report()}"


async def _take(page: Page, name: str) -> None:
    """The whole page; of an open dialog what the window shows, and its end where that takes scrolling."""
    dialog = page.locator("dialog[open]")
    if await dialog.count() == 0:
        await page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
        return
    await page.screenshot(path=PICTURES / f"{name}.png")
    above = await dialog.evaluate("""element => {
        const above = element.scrollTop;
        element.scrollTop = element.scrollHeight;
        return element.scrollTop > above ? above : null;
    }""")
    if above is not None:
        await page.screenshot(path=PICTURES / f"{name}-end.png")
        await dialog.evaluate("(element, above) => { element.scrollTop = above; }", above)
