"""Settings → API Keys: the page where key owners create, watch, rotate and revoke.

    who signed in -> views (what was asked for) -> management (what is done, and what may be) -> pages -> templates

Pages are HTML that reads without scripts; the scripts beside them do what changes something, as clients of the
management API under `/settings/v1`, where the sign-in stands for the credential. This room adds no rule and no
statement.
"""
