//! Computes the address that a faulting instruction accessed, from its bytes and registers (Intel
//! SDM vol. 2, chapter 2).
//!
//! The CPU reports it in CR2, but only ring 0 can read that, and where ring 0 is emulated, reading
//! it takes longer than the rest of the fault. So the page fault handler computes the address of
//! those instructions that compilers emit, and asks the ring-0 stub for CR2 where that yields
//! nothing that could have faulted. A wrong answer does no harm: a page is mapped that the
//! application did not access, and when the instruction faults again, CR2 is read, because that
//! page is mapped.

/// The longest instruction, in bytes.
pub(crate) const LONGEST: usize = 15;

/// An instruction's registers, in the order of their numbers in its encoding: RAX, RCX, RDX, RBX,
/// RSP, RBP, RSI, RDI, R8 to R15.
pub(crate) type Registers = [u64; 16];

const RSP: u8 = 4;
const RBP: u8 = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// How an instruction touched memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It read.
    Read,
    /// It wrote.
    Write,
}

/// Returns the address of the memory operand of the instruction in `code`; `None` for instructions
/// that have none or that are not known here.
pub(crate) fn address(code: &[u8; LONGEST], registers: &Registers, access: Access) -> Option<u64> {
    let mut bytes = Bytes(code.iter());
    let mut extension = 0;
    let opcode = loop {
        match bytes.next()? {
            0x66 | 0xf0 | 0xf2 | 0xf3 => {}
            rex @ 0x40..=0x4f => extension = rex,
            opcode => break opcode,
        }
    };
    match opcode {
        0xa4 | 0xa5 if access == Access::Read => Some(registers[RSI]), // MOVS
        0xa4 | 0xa5 | 0xaa | 0xab => Some(registers[RDI]),             // MOVS, STOS
        0x0f if has_operand_0f(bytes.next()?) => operand(&mut bytes, extension, registers),
        _ if has_operand(opcode) => operand(&mut bytes, extension, registers),
        _ => None,
    }
}

/// Returns whether an opcode of one byte is followed by a ModRM byte whose operand is read or
/// written.
fn has_operand(opcode: u8) -> bool {
    match opcode {
        0x00..=0x3b => opcode & 7 < 4, // arithmetic
        // MOVSXD, IMUL, arithmetic with constants, TEST, XCHG, MOV, shifts, MOV of constants, NOT
        // to DIV, INC to PUSH
        0x63 | 0x69 | 0x6b | 0x80 | 0x81 | 0x83..=0x8b | 0xc0 | 0xc1 | 0xc6 | 0xc7 | 0xd0..=0xd3 => true,
        0xf6 | 0xf7 | 0xfe | 0xff => true,
        _ => false,
    }
}

/// Does the same for the second byte of an opcode that begins with 0F.
fn has_operand_0f(opcode: u8) -> bool {
    match opcode {
        0x10 | 0x11 | 0x28 | 0x29 | 0x40..=0x4f | 0x90..=0x9f => true, // MOVUPS, MOVAPS, CMOVcc, SETcc
        0xaf..=0xb1 | 0xb6 | 0xb7 | 0xbe..=0xc1 => true,               // IMUL, CMPXCHG, MOVZX, MOVSX, XADD
        _ => false,
    }
}

/// Returns the address that ModRM, SIB and displacement name; `None` for a register, and for what
/// is relative to RIP: statics are mapped.
fn operand(bytes: &mut Bytes<'_>, extension: u8, registers: &Registers) -> Option<u64> {
    let base_register = |low: u8| registers[usize::from(low & 7 | (extension & REX_B) << 3)];
    let modrm = bytes.next()?;
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let base = match (mode, rm) {
        (3, _) | (0, RBP) => return None,
        (_, RSP) => {
            let sib = bytes.next()?;
            let index = sib >> 3 & 7 | (extension & REX_X) << 2;
            let index = if index == RSP { 0 } else { registers[usize::from(index)] << (sib >> 6) };
            if mode == 0 && sib & 7 == RBP {
                return Some(index.wrapping_add(bytes.displacement(4)?));
            }
            base_register(sib).wrapping_add(index)
        }
        _ => base_register(rm),
    };
    let displacement = match mode {
        1 => bytes.displacement(1)?,
        2 => bytes.displacement(4)?,
        _ => 0,
    };
    Some(base.wrapping_add(displacement))
}

/// Bits of a REX prefix: the high bits of the index's and of the base's number.
const REX_X: u8 = 1 << 1;
const REX_B: u8 = 1 << 0;

/// The rest of the instruction.
struct Bytes<'a>(core::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        self.0.next().copied()
    }

    /// Returns the next one or four bytes, as a signed number.
    fn displacement(&mut self, length: usize) -> Option<u64> {
        let mut number = [0; 4];
        for byte in &mut number[..length] {
            *byte = self.next()?;
        }
        let unused = 32 - 8 * length;
        Some(i64::from((u32::from_le_bytes(number) << unused).cast_signed() >> unused).cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, LONGEST, Registers, address};

    /// Register n holds n in its upper half, so that each is recognised.
    fn registers() -> Registers {
        core::array::from_fn(|number| (number as u64) << 32)
    }

    fn operand(instruction: &[u8], access: Access) -> Option<u64> {
        let mut code = [0x90; LONGEST];
        code[..instruction.len()].copy_from_slice(instruction);
        address(&code, &registers(), access)
    }

    fn at(register: u64, offset: i64) -> Option<u64> {
        Some((register << 32).wrapping_add_signed(offset))
    }

    #[test]
    fn instructions_as_compilers_emit_them() {
        let read = |instruction: &[u8]| operand(instruction, Access::Read);
        assert_eq!(read(&[0xc6, 0x00, 0x01]), at(0, 0), "mov byte ptr [rax], 1");
        assert_eq!(read(&[0x48, 0x89, 0x14, 0xc8]), at(8, 0), "mov [rax+rcx*8], rdx");
        assert_eq!(read(&[0x4f, 0x8b, 0x4c, 0xac, 0xe0]), at(12 + 4 * 13, -0x20), "mov r9, [r12+r13*4-0x20]");
        assert_eq!(read(&[0x48, 0x89, 0x5c, 0x24, 0x18]), at(4, 0x18), "mov [rsp+0x18], rbx");
        assert_eq!(read(&[0x48, 0x8b, 0x45, 0xf8]), at(5, -8), "mov rax, [rbp-8]");
        assert_eq!(read(&[0x49, 0x8b, 0x45, 0x00]), at(13, 0), "mov rax, [r13]");
        assert_eq!(read(&[0x8b, 0x04, 0xcd, 0x67, 0x45, 0x23, 0x01]), at(8, 0x0123_4567), "mov eax, [rcx*8+0x1234567]");
        assert_eq!(read(&[0x0f, 0xb6, 0x04, 0x37]), at(7 + 6, 0), "movzx eax, byte ptr [rdi+rsi]");
        assert_eq!(
            read(&[0x49, 0x63, 0x80, 0x78, 0x56, 0x34, 0x12]),
            at(8, 0x1234_5678),
            "movsxd rax, [r8+0x12345678]"
        );
        assert_eq!(read(&[0x48, 0x83, 0x43, 0x80, 0x07]), at(3, -0x80), "add qword ptr [rbx-0x80], 7");
        assert_eq!(read(&[0x41, 0x81, 0x3f, 0x44, 0x33, 0x22, 0x11]), at(15, 0), "cmp dword ptr [r15], 0x11223344");
        assert_eq!(read(&[0xf0, 0x49, 0x0f, 0xc1, 0x02]), at(10, 0), "lock xadd [r10], rax");
        assert_eq!(read(&[0x66, 0xc7, 0x01, 0x05, 0x00]), at(1, 0), "mov word ptr [rcx], 5");
        assert_eq!(read(&[0x41, 0x0f, 0x94, 0x03]), at(11, 0), "sete [r11]");
    }

    #[test]
    fn strings_are_where_their_registers_point() {
        assert_eq!(operand(&[0xf3, 0x48, 0xab], Access::Write), at(7, 0), "rep stosq");
        assert_eq!(operand(&[0xf3, 0xa4], Access::Write), at(7, 0), "rep movsb, at its destination");
        assert_eq!(operand(&[0xf3, 0xa4], Access::Read), at(6, 0), "rep movsb, at its source");
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let cases: [(&[u8], &str); 7] = [
            (&[0x48, 0x8b, 0x05, 0x00, 0x01, 0x00, 0x00], "mov rax, [rip+0x100]"),
            (&[0x48, 0x8d, 0x03], "lea rax, [rbx]"),
            (&[0x48, 0x89, 0xd8], "mov rax, rbx"),
            (&[0x65, 0x48, 0x8b, 0x03], "mov rax, gs:[rbx]"),
            (&[0x67, 0x8b, 0x03], "mov eax, [ebx]"),
            (&[0x48, 0x0f, 0xa3, 0x08], "bt [rax], rcx"),
            (&[0x66; LONGEST], "prefixes only"),
        ];
        for (instruction, name) in cases {
            assert_eq!(operand(instruction, Access::Read), None, "{name}");
        }
    }
}
