"""Room for decoded images: threads wait for each other, and never for ever."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from t2ialign.data.images import open_rgb
from t2ialign.data.room import Room


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(stream, "png")
    return stream.getvalue()


def test_no_more_pixels_are_held_than_there_is_room_for():
    room, most, lock = Room(250), [0], threading.Lock()

    def decode(_: int) -> tuple[int, int]:
        with room.taken() as admit:
            size = open_rgb(png(10, 10), admit=admit).size
            with lock:
                most[0] = max(most[0], room.used)
            time.sleep(0.005)
            return size

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(decode, range(24))) == [(10, 10)] * 24
    assert most[0] == 200, "two of 100 pixels, and not three"
    assert room.used == 0


def test_an_image_larger_than_the_room_is_decoded_alone_and_pairs_do_not_wait_for_each_other():
    room = Room(150)

    def pair(_: int) -> int:
        with room.taken() as admit:
            open_rgb(png(20, 10), admit=admit)
            open_rgb(png(10, 10), admit=admit)
            return room.used

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(pair, range(8), timeout=20)) == [300] * 8


def test_room_is_given_back_by_what_fails():
    room = Room(150)
    try:
        with room.taken() as admit:
            open_rgb(png(10, 10)[:60], admit=admit)
    except ValueError:
        pass
    assert room.used == 0
