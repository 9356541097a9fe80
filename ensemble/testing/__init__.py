"""Members for tests, and the suite that every engine must pass. Public: plug-in authors and users need them too."""

from ensemble.testing.local import LocalMember, ScriptedMember, TinyMember

__all__ = ["LocalMember", "ScriptedMember", "TinyMember"]
