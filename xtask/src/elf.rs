//! The section names of an ELF file, as little of the format as that takes.

use anyhow::{Context as _, Result, bail};

/// Names of the sections of a 64-bit little-endian ELF file, in its order.
pub fn sections(bytes: &[u8]) -> Result<Vec<String>> {
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF file");
    }
    // Offsets of the fields: System V ABI, `Elf64_Ehdr` and `Elf64_Shdr`.
    let table = number(bytes, 0x28, 8)?;
    let size = number(bytes, 0x3a, 2)?;
    let count = number(bytes, 0x3c, 2)?;
    let names_index = number(bytes, 0x3e, 2)?;
    let header = |index: usize| table.checked_add(index * size).context("section table too far");
    let names_header = header(names_index)?.checked_add(0x18).context("section table too far")?;
    let names = number(bytes, names_header, 8)?;
    (0..count)
        .map(|index| {
            let at =
                names.checked_add(number(bytes, header(index)?, 4)?).context("name too far")?;
            let rest = bytes.get(at..).context("a section's name lies outside of the file")?;
            let end = rest.iter().position(|&byte| byte == 0).context("a name without an end")?;
            Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
        })
        .collect()
}

fn number(bytes: &[u8], at: usize, width: usize) -> Result<usize> {
    let field = at.checked_add(width).and_then(|end| bytes.get(at..end));
    let field = field.with_context(|| format!("cut short at byte {at}"))?;
    Ok(field.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of a header, names and a section table, nothing else.
    fn file(names: &[&str]) -> Vec<u8> {
        let mut strings = vec![0];
        let mut headers = Vec::new();
        for name in names {
            let mut header = vec![0; 0x40];
            header[..4].copy_from_slice(&u32::try_from(strings.len()).unwrap().to_le_bytes());
            header[0x18..0x20].copy_from_slice(&0x40_u64.to_le_bytes());
            headers.extend(header);
            strings.extend(name.as_bytes());
            strings.push(0);
        }
        let mut bytes = vec![0; 0x40];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[0x28..0x30].copy_from_slice(&(0x40 + strings.len() as u64).to_le_bytes());
        bytes[0x3a..0x3c].copy_from_slice(&0x40_u16.to_le_bytes());
        bytes[0x3c..0x3e].copy_from_slice(&u16::try_from(names.len()).unwrap().to_le_bytes());
        bytes.extend(strings);
        bytes.extend(headers);
        bytes
    }

    #[test]
    fn names_are_read_in_order() {
        let bytes = file(&[".strtab", "xdp", ".BTF"]);
        assert_eq!(sections(&bytes).unwrap(), [".strtab", "xdp", ".BTF"]);
    }

    #[test]
    fn a_broken_file_is_an_error_and_no_panic() {
        assert!(sections(b"").is_err());
        assert!(sections(b"#!/bin/sh").is_err());
        let whole = file(&[".strtab", ".BTF"]);
        for length in 0..whole.len() {
            // A cut may leave the names whole; it must never be read outside of the file.
            let _ = sections(&whole[..length]);
        }
        let mut wild = whole;
        wild[0x28..0x30].fill(0xff);
        assert!(sections(&wild).is_err());
    }
}
