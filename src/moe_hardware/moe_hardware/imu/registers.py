"""Register map and UART protocol of the Bosch BNO055 (data sheet BST-BNO055-DS000, sections 4.2, 4.3 and 4.7)."""

from __future__ import annotations

from enum import IntEnum

REQUEST = 0xAA
WRITE, READ = 0x00, 0x01
DATA, STATUS = 0xBB, 0xEE  # first byte of a reply: bytes read, or the outcome
MAX_LENGTH = 128  # bytes in one read or write

CHIP_ID_VALUE, ACC_ID_VALUE, MAG_ID_VALUE, GYR_ID_VALUE = 0xA0, 0xFB, 0x32, 0x0F


class Status(IntEnum):
    """Second byte of a reply that begins with STATUS (section 4.7)."""

    WRITE_SUCCESS = 0x01
    READ_FAIL = 0x02
    WRITE_FAIL = 0x03
    REGMAP_INVALID_ADDRESS = 0x04
    REGMAP_WRITE_DISABLED = 0x05
    WRONG_START_BYTE = 0x06
    BUS_OVER_RUN_ERROR = 0x07
    MAX_LENGTH_ERROR = 0x08
    MIN_LENGTH_ERROR = 0x09
    RECEIVE_CHARACTER_TIMEOUT = 0x0A


class Register(IntEnum):
    """Addresses on page 0; words are little-endian int16."""

    CHIP_ID = 0x00
    ACC_ID = 0x01
    MAG_ID = 0x02
    GYR_ID = 0x03
    SW_REV = 0x04
    BL_REV = 0x06
    PAGE_ID = 0x07
    ACC_DATA = 0x08  # x, y, z
    MAG_DATA = 0x0E
    GYR_DATA = 0x14
    EUL_DATA = 0x1A  # heading, roll, pitch
    QUA_DATA = 0x20  # w, x, y, z
    LIA_DATA = 0x28
    GRV_DATA = 0x2E
    TEMP = 0x34  # int8
    CALIB_STAT = 0x35
    ST_RESULT = 0x36
    INT_STA = 0x37
    SYS_CLK_STATUS = 0x38
    SYS_STATUS = 0x39
    SYS_ERR = 0x3A
    UNIT_SEL = 0x3B
    OPR_MODE = 0x3D
    PWR_MODE = 0x3E
    SYS_TRIGGER = 0x3F
    TEMP_SOURCE = 0x40
    AXIS_MAP_CONFIG = 0x41
    AXIS_MAP_SIGN = 0x42
    ACC_OFFSET = 0x55
    MAG_RADIUS_MSB = 0x6A


class Mode(IntEnum):
    """Low nibble of OPR_MODE (table 3-5); from IMU on the chip's own fusion runs."""

    CONFIG = 0x00
    ACCONLY = 0x01
    MAGONLY = 0x02
    GYROONLY = 0x03
    ACCMAG = 0x04
    ACCGYRO = 0x05
    MAGGYRO = 0x06
    AMG = 0x07
    IMU = 0x08
    COMPASS = 0x09
    M4G = 0x0A
    NDOF_FMC_OFF = 0x0B
    NDOF = 0x0C


# UNIT_SEL: m/s^2, rad/s, radians, degrees Celsius (section 3.6.1); a set bit chooses the second unit of each.
UNIT_MG, UNIT_RPS, UNIT_RADIANS, UNIT_FAHRENHEIT, UNIT_ANDROID = 0x01, 0x02, 0x04, 0x10, 0x80
LSB_PER_MPS2, LSB_PER_MG = 100.0, 1.0
LSB_PER_DPS, LSB_PER_RPS = 16.0, 900.0
LSB_PER_DEGREE, LSB_PER_RADIAN = 16.0, 900.0
LSB_PER_QUATERNION_UNIT = float(1 << 14)
LSB_PER_MICROTESLA = 16.0

TRIGGER_RESET = 0x20  # RST_SYS of SYS_TRIGGER
SYS_STATUS_IDLE, SYS_STATUS_ERROR, SYS_STATUS_FUSION, SYS_STATUS_NO_FUSION = 0, 1, 5, 6

BOOT_S = 0.65  # from reset to the first answer (table 0-2)
SWITCH_TO_CONFIG_S, SWITCH_FROM_CONFIG_S = 0.019, 0.007  # table 3-6
CHARACTER_TIMEOUT_S = 0.030  # between two bytes of a request
ACC_RANGE_MPS2 = 4 * 9.80665  # +-4 g out of reset
GYR_RANGE_DPS = 2000.0
