"""The SDKs: their surface (SURFACE.md), the document their models come from, and the suite both are held to."""
