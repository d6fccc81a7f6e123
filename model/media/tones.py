"""HDR and wide colours to what an ordinary screen shows: ITU-R BT.709, gamma 2.4 (BT.1886).

The rule: light in nits by BT.2100's curves, PQ's as it is, HLG's on a screen of 1,000 nits; from
BT.2020 to BT.709 by BT.2087, what lies outside cut off; then by BT.2390's curve (EETF) 1,000 nits
become white, for which BT.2408 has 203, and what is below 92 nits stays as it is. Pictures in
BT.2020 without HDR have their colours moved and no curve.

FFmpeg's own conversion (swscale 9) gives the same colours, and takes 10 s or more of one core to
build its table; its filter `zscale` is not in PyAV's FFmpeg.

Dimensions: H, W pixels, C = 3 colours (RGB).
"""

from functools import cache

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc
from numpy.typing import NDArray

Light = NDArray[np.float32]

WHITE, PEAK = 203.0, 1000.0  # nits
GAMMA = 2.4
HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ, HLG
TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)
LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
CODES, STEPS = 2**16, 2**13  # of the two tables


def needs_toning(transfer: int, primaries: int) -> bool:
    """Tell whether a frame's pixels mean other light than an ordinary screen gives."""
    return transfer in HDR or primaries == ColorPrimaries.BT2020


def toned(pixels_HWC: NDArray[np.uint16], transfer: int, primaries: int) -> NDArray[np.uint8]:
    """Return the RGB that an ordinary screen is given for a frame's RGB."""
    light_HWC = _light(transfer)[pixels_HWC]
    if transfer == ColorTrc.ARIB_STD_B67:
        luma_HW1 = (light_HWC @ LUMA)[..., None] / PEAK
        light_HWC *= np.maximum(luma_HW1, 1e-6) ** 0.2
    if primaries == ColorPrimaries.BT2020:
        light_HWC = light_HWC @ TO_BT709.T
    place_HWC = np.sqrt(np.sqrt(np.clip(light_HWC / PEAK, 0, 1)))  # close steps where it is dark
    steps_HWC = np.rint(place_HWC * (STEPS - 1)).astype(np.int16)
    return _screen(compress=transfer in HDR)[steps_HWC]


@cache
def _light(transfer: int) -> Light:
    """Nits of each code; of HLG before the screen's own curve (BT.2100, tables 4 and 5)."""
    code = np.linspace(0, 1, CODES)
    match transfer:
        case ColorTrc.SMPTE2084:
            nits = _pq_nits(code)
        case ColorTrc.ARIB_STD_B67:
            a, b, c = 0.17883277, 0.28466892, 0.55991073
            nits = PEAK * np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
        case _:
            nits = WHITE * code**GAMMA
    return nits.astype(np.float32)


@cache
def _screen(*, compress: bool) -> NDArray[np.uint8]:
    """The screen's code, 0 to 255, of each step of light up to `PEAK`."""
    nits = PEAK * np.linspace(0, 1, STEPS) ** 4
    nits = _compressed(nits) if compress else np.minimum(nits, WHITE)
    return np.rint(255 * (nits / WHITE) ** (1 / GAMMA)).astype(np.uint8)


def _compressed(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make room below `WHITE` for light up to `PEAK` (BT.2390, section 5.4.1, black left as is)."""
    peak, most = _pq_code(PEAK), _pq_code(WHITE) / _pq_code(PEAK)
    knee = 1.5 * most - 0.5
    code = _pq_code(nits) / peak
    t = np.maximum(code - knee, 0) / (1 - knee)
    above = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * most
    )
    return np.minimum(_pq_nits(peak * np.where(code < knee, code, above)), WHITE)


def _pq_nits(code: NDArray[np.float64]) -> NDArray[np.float64]:
    power = code ** (1 / 78.84375)
    part = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return np.asarray(10000 * part ** (1 / 0.1593017578125))


def _pq_code(nits: NDArray[np.float64] | float) -> NDArray[np.float64]:
    power = (np.asarray(nits) / 10000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)
