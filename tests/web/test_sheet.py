"""The contact sheet: every image, in reading order."""

import numpy as np
from PIL import Image

from t2ialign.web.sheet import contact_sheet


def test_contact_sheet_shows_every_image_in_reading_order() -> None:
    tones = [0, 60, 120, 180, 240]
    sheet = np.asarray(contact_sheet([Image.new("RGB", (32, 32), (t, t, t)) for t in tones], 2, gap=4))
    assert sheet.shape == (4 + 3 * 100, 4 + 2 * 100, 3), "32 pixels are enlarged to 96"
    centres = [sheet[4 + 48 + i // 2 * 100, 4 + 48 + i % 2 * 100, 0] for i in range(5)]
    assert centres == tones
    large = contact_sheet([Image.new("RGB", (1024, 512))], 1, gap=0)
    assert large.size == (256, 128)
