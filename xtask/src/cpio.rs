//! Writes archives that Linux unpacks into its initial RAM disk: cpio's format `newc` (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst).

/// File type and permissions, as in `st_mode`.
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// The name of the entry that ends an archive.
const END: &str = "TRAILER!!!";
/// Headers and contents begin at multiples of this, in bytes.
const ALIGNMENT: usize = 4;

/// An archive that is being written.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder. The folders above it must have been added before.
    pub(crate) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, &[]);
    }

    /// Adds a file that every user may execute.
    pub(crate) fn program(&mut self, path: &str, contents: &[u8]) {
        self.entry(path, PROGRAM, contents);
    }

    /// Ends the archive and returns it.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, two pairs of device numbers, length of the
        // name with its final zero, checksum.
        let fields = [self.entries as usize, mode as usize, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, path.len() + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn an_archive_has_headers_names_and_contents() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.program("bin/sh", b"12345");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let zeros = |fields| "00000000".repeat(fields);
        // Inode, mode, owner and group, links, time and size and devices, length of the name,
        // checksum.
        let folder = format!("07070100000001000041ed{}00000001{}00000004{}bin\0\0\0", zeros(2), zeros(6), zeros(1));
        assert!(text.starts_with(&folder), "{text}");
        assert_eq!(bytes.len() % 4, 0);
        let program = text.find("bin/sh\0").unwrap();
        assert_eq!((program % 4, &text[program - 110..program - 96]), (110 % 4, "07070100000002"));
        assert_eq!(&text[program + 10..program + 18], "12345\0\0\0");
        assert!(text.contains("TRAILER!!!\0"));
    }
}
