//! Reads and writes all registers of its disk with every width, and notifies queues that there are
//! not. Afterwards the device can be reset, and serves.

use crate::rings::{DEVICE, NOTIFY, STATUS, USED, begin, read, request, wait_until, write};
use crate::{SPARE, Wrong, port};

/// Bytes of the registers and of the configuration behind them.
const BYTES: usize = 0x140;
const VALUES: [u64; 6] = [0, 1, 3, 0xffff, 1 << 31, u64::MAX];

pub(crate) fn write_all() -> Result<(), Wrong> {
    port::mask_upcalls();
    let frame = usize::try_from(SPARE.start.address()).map_err(|_| "no address")?;
    for value in VALUES {
        // With a queue that is enabled, too, whose parts and size are changed then.
        begin([frame, frame + 0x1000, frame + USED]);
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        for register in (DEVICE..DEVICE + BYTES).step_by(8) {
            let _: u64 = read(register);
            write(register, value);
        }
        for register in (DEVICE..DEVICE + BYTES).step_by(4) {
            let _: u32 = read(register);
            write(register, u32::from_le_bytes([a, b, c, d]));
        }
        for register in (DEVICE..DEVICE + BYTES).step_by(2) {
            let _: u16 = read(register);
            write(register, u16::from_le_bytes([e, f]));
        }
        for register in DEVICE..DEVICE + BYTES {
            let _: u8 = read(register);
            write(register, g | h);
        }
        for queue in [1, 2, 0xffff, u32::MAX] {
            write(DEVICE + NOTIFY, queue);
        }
    }
    write(DEVICE + STATUS, 0_u32);
    begin([frame, frame + 0x1000, frame + USED]);
    write(frame + USED, [0_u16; 2]);
    request(frame);
    wait_until("the device does not serve after its reset", || read::<u16>(frame + USED + 2) == 1)
}
