//! Accesses the balloon port in ways that are not calls: other widths, strings, reads. None of them
//! changes a register.

use core::arch::asm;

use aerostat_abi::port::{Command, PORT, Registers, Status};

use crate::{Wrong, expect, port};

const COUNT: usize = 3;

pub(crate) fn write() -> Result<(), Wrong> {
    let call = Registers { rax: Command::Reset.encode(), rdi: 1, rsi: 2, r8: 3 };
    let Registers { mut rax, mut rdi, mut rsi, mut r8 } = call;
    // SAFETY: this is not a call, so it does not change memory.
    unsafe {
        asm!(
            "out dx, al",
            "out dx, ax",
            in("dx") PORT, inout("rax") rax, inout("rdi") rdi, inout("rsi") rsi, inout("r8") r8
        );
    }
    expect(Registers { rax, rdi, rsi, r8 } == call, "a narrow write was taken for a call")?;

    let words = [0_u32; COUNT];
    let mut left = COUNT;
    let (mut rax, mut end) = (call.rax, words.as_ptr());
    // SAFETY: reads the words.
    unsafe { asm!("rep outsd", in("dx") PORT, inout("rcx") left, inout("rsi") end, inout("rax") rax) };
    expect(rax == call.rax, "a string was taken for a call")?;
    expect((left, end) == (0, words.as_ptr_range().end), "a string write ended elsewhere")?;

    let mut read = [0_u32; COUNT];
    let mut to = read.as_mut_ptr();
    let mut left = COUNT;
    // SAFETY: writes the words.
    unsafe { asm!("rep insd", in("dx") PORT, inout("rcx") left, inout("rdi") to) };
    expect((left, to.cast_const()) == (0, read.as_ptr_range().end), "a string read ended elsewhere")?;
    let value: u32;
    // SAFETY: a read touches no memory.
    unsafe { asm!("in eax, dx", in("dx") PORT, out("eax") value) };
    expect(value == u32::MAX && read == [u32::MAX; COUNT], "a read found something")?;
    expect(port::call(Command::GetTarget, 0, 0) == Some(Status::Ok), "the session has ended")
}
