"""What the store keeps of augmentation is verified as its adapters are."""

import pytest

from lorary.augment.kept import Results
from lorary.core.errors import LoraryError
from lorary.upkeep.verify import verify


def test_a_damaged_result_is_named_and_removed(tmp_path):
    store = str(tmp_path / "store")
    results = Results(store)
    good, bad = "a" * 64, "b" * 64
    results.put([(key, {"pairs": [], "complete": True, "tries_allowed": 4}) for key in (good, bad)])
    verify([], [], [], [], [store])
    path = results.path(bad)
    path.write_text(path.read_text(encoding="utf-8").replace("true", "false"), encoding="utf-8")
    with pytest.raises(LoraryError, match=f"{bad}.json: is not what was written"):
        verify([], [], [], [], [store])
    assert list(results.keys()) == [good]
    verify([], [], [], [], [store])
