"""Run folders on object stores: a study works in a local folder, which is sent to the store as it grows."""

from heatprint.study.remote.place import fetched, is_address, worked_in

__all__ = ["fetched", "is_address", "worked_in"]
