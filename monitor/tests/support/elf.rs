//! Generated guest images: an ELF header, two program headers, the entry-version note and one
//! loadable segment.

/// Where the image is linked.
pub(crate) const BASE: u64 = 0x20_0000;
/// Where the code begins in the file.
pub(crate) const CODE_OFFSET: usize = 0x1000;
/// Where the program headers begin in the file.
pub(crate) const SEGMENTS_OFFSET: usize = 64;

/// Builds an image that loads `code` at [`BASE`], followed by zeros up to `bytes` bytes, and starts
/// at its first byte.
pub(crate) fn image(code: &[u8], bytes: u64) -> Vec<u8> {
    let mut file = vec![0; CODE_OFFSET];
    let mut put = |offset: usize, part: &[u8]| file[offset..offset + part.len()].copy_from_slice(part);
    put(0, b"\x7fELF\x02\x01\x01\xff");
    put(16, &2_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(20, &1_u32.to_le_bytes());
    put(24, &BASE.to_le_bytes());
    put(32, &(SEGMENTS_OFFSET as u64).to_le_bytes());
    put(52, &64_u16.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &2_u16.to_le_bytes());
    put(58, &64_u16.to_le_bytes());

    let note_offset = 0x200;
    let note = b"\x07\0\0\0\x01\0\0\0\x00\x5a\0\0HERMIT\0\0\x04\0\0\0";
    put(note_offset, note);
    put(SEGMENTS_OFFSET, &segment(4, note_offset as u64, 0, note.len() as u64, note.len() as u64, 4));
    let code_bytes = code.len() as u64;
    let load = segment(1, CODE_OFFSET as u64, BASE, code_bytes, bytes.max(code_bytes), 4096);
    put(SEGMENTS_OFFSET + 56, &load);
    file.extend(code);
    file
}

/// Builds a program header.
pub(crate) fn segment(kind: u32, offset: u64, address: u64, file_bytes: u64, bytes: u64, align: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(kind.to_le_bytes());
    header.extend(7_u32.to_le_bytes());
    for field in [offset, address, address, file_bytes, bytes, align] {
        header.extend(field.to_le_bytes());
    }
    header
}
