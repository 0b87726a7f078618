//! [`Rebase`]: the archive of one folder, as the archive of what is in it.

use super::{ArchiveFlaw, BLOCK, RECORDS, number, pairs, record};

/// Moves every entry of an archive that passes out of the folder in which all of them are: `data/a` becomes `./a`, and the folder itself
/// `./`. Targets of hard links move with them; those of symbolic links are what the user wrote.
///
/// ```
/// use runtide_engine::{Rebase, archive_of};
///
/// let mut rebase = Rebase::out_of("data");
/// let moved = rebase.pass(&archive_of("data/a", b"content")?)?;
/// assert!(moved.starts_with(b"./a\0"));
/// assert!(Rebase::out_of("data").pass(&archive_of("other/a", b"")?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Rebase {
    folder: &'static str,
    at: At,
    /// The block that is under way.
    block: Vec<u8>,
    /// Headers and contents that precede the next entry and are about it.
    before: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug)]
enum At {
    Header,
    /// In a content, which passes.
    Content {
        left: u64,
    },
    /// In a content that is about the next entry, of which `size` bytes count.
    About {
        left: u64,
        size: usize,
    },
    End,
}

impl Rebase {
    /// Moves entries out of this folder.
    pub fn out_of(folder: &'static str) -> Self {
        Self { folder, at: At::Header, block: Vec::new(), before: Vec::new() }
    }

    /// The next bytes, moved. What is about an entry comes with the entry.
    ///
    /// # Errors
    /// `NotAnArchive` for bytes that are none, and for an entry outside of the folder.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, ArchiveFlaw> {
        let mut out = Vec::with_capacity(bytes.len().saturating_add(2 * BLOCK));
        while !bytes.is_empty() {
            match &mut self.at {
                At::End => {
                    out.extend_from_slice(bytes);
                    break;
                }
                At::Content { left } => {
                    let (content, rest) = cut(bytes, *left);
                    out.extend_from_slice(content);
                    *left -= content.len() as u64;
                    bytes = rest;
                    if *left == 0 {
                        self.at = At::Header;
                    }
                }
                At::About { left, size } => {
                    let (content, rest) = cut(bytes, *left);
                    let Some((_, kept)) = self.before.last_mut() else { return Err(UNREADABLE) };
                    kept.extend_from_slice(content);
                    *left -= content.len() as u64;
                    bytes = rest;
                    if *left == 0 {
                        kept.truncate(*size);
                        self.at = At::Header;
                    }
                }
                At::Header => {
                    let (part, rest) = bytes.split_at((BLOCK - self.block.len()).min(bytes.len()));
                    self.block.extend_from_slice(part);
                    bytes = rest;
                    if self.block.len() == BLOCK {
                        let block = std::mem::take(&mut self.block);
                        self.at = self.after_header(block, &mut out)?;
                    }
                }
            }
        }
        Ok(out)
    }

    fn after_header(&mut self, mut block: Vec<u8>, out: &mut Vec<u8>) -> Result<At, ArchiveFlaw> {
        if block.iter().all(|byte| *byte == 0) {
            out.append(&mut block);
            return Ok(At::End);
        }
        let kind = block.get(156).copied().unwrap_or_default();
        let own = number(block.get(124..136)).ok_or(UNREADABLE)?;
        if matches!(kind, b'x' | b'L' | b'K') {
            let size = usize::try_from(own).ok().filter(|size| *size <= RECORDS).ok_or(UNREADABLE)?;
            self.before.push((block, Vec::new()));
            return Ok(if size == 0 { At::Header } else { At::About { left: padded(own)?, size } });
        }
        let is_about_all = kind == b'g';
        let is_hard_link = kind == b'1';
        let mut size = own;
        for (mut header, content) in std::mem::take(&mut self.before) {
            let content = match header.get(156).copied().unwrap_or_default() {
                b'x' => {
                    size = record(&content, b"size").unwrap_or(size);
                    self.records(&content, is_hard_link)?
                }
                b'L' => self.moved(&content)?,
                _ if is_hard_link => self.moved(&content)?,
                _ => content,
            };
            write_size(&mut header, content.len());
            out.append(&mut header);
            let end = content.len().next_multiple_of(BLOCK) - content.len();
            out.extend_from_slice(&content);
            out.resize(out.len() + end, 0);
        }
        if !is_about_all {
            self.move_in(&mut block, is_hard_link)?;
        }
        out.append(&mut block);
        let left = if matches!(kind, b'1'..=b'6') { 0 } else { padded(size)? };
        Ok(if left == 0 { At::Header } else { At::Content { left } })
    }

    /// The records of an entry with its names moved.
    fn records(&self, records: &[u8], is_hard_link: bool) -> Result<Vec<u8>, ArchiveFlaw> {
        let mut all = Vec::with_capacity(records.len());
        for (key, value) in pairs(records) {
            let value = match key {
                b"path" => self.moved(value)?,
                b"linkpath" if is_hard_link => self.moved(value)?,
                _ => value.to_vec(),
            };
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            all.extend_from_slice(length.to_string().as_bytes());
            all.push(b' ');
            all.extend_from_slice(key);
            all.push(b'=');
            all.extend_from_slice(&value);
            all.push(b'\n');
        }
        Ok(all)
    }

    /// Moves the name in a header, which may be in two fields, and the target of a hard link.
    fn move_in(&self, block: &mut [u8], is_hard_link: bool) -> Result<(), ArchiveFlaw> {
        let has_prefix = block.get(257..263) == Some(b"ustar\0") && block.get(345).is_some_and(|first| *first != 0);
        let mut fields = vec![if has_prefix { 345..500 } else { 0..100 }];
        if is_hard_link {
            fields.push(157..257);
        }
        for field in fields {
            let Some(field) = block.get_mut(field) else { return Err(UNREADABLE) };
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            let moved = self.moved(field.get(..end).unwrap_or_default())?;
            let bytes = moved.into_iter().chain(std::iter::repeat(0));
            field.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        }
        write_checksum(block);
        Ok(())
    }

    fn moved(&self, path: &[u8]) -> Result<Vec<u8>, ArchiveFlaw> {
        let path = path.strip_prefix(b"./").unwrap_or(path);
        match path.strip_prefix(self.folder.as_bytes()) {
            Some([]) => Ok(b".".to_vec()),
            Some(rest @ [b'/' | 0, ..]) => Ok([b".", rest].concat()),
            _ => Err(ArchiveFlaw::NotAnArchive("an entry lies outside of the folder that was archived")),
        }
    }
}

const UNREADABLE: ArchiveFlaw = ArchiveFlaw::NotAnArchive("a header cannot be read");

fn cut(bytes: &[u8], left: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()))
}

fn padded(size: u64) -> Result<u64, ArchiveFlaw> {
    size.checked_next_multiple_of(BLOCK as u64).ok_or(UNREADABLE)
}

fn write_size(block: &mut [u8], size: usize) {
    let size = format!("{size:011o}\0");
    block.iter_mut().skip(124).zip(size.bytes()).for_each(|(to, byte)| *to = byte);
    write_checksum(block);
}

fn write_checksum(block: &mut [u8]) {
    let sum: u64 =
        (0..).zip(&*block).map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
    let sum = format!("{sum:06o}\0 ");
    block.iter_mut().skip(148).zip(sum.bytes()).for_each(|(to, byte)| *to = byte);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::archive::ArchiveCheck;

    /// An archive as Podman writes one, with names that need every form of a long name.
    fn archive(names: &[String]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut folder = tar::Header::new_ustar();
        folder.set_entry_type(tar::EntryType::Directory);
        folder.set_mode(0o1770);
        folder.set_uid(77);
        folder.set_size(0);
        archive.append_data(&mut folder, "_data/", &b""[..]).unwrap();
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_uid(1234);
            header.set_mode(0o640);
            header.set_size(name.len() as u64);
            archive.append_data(&mut header, format!("_data/{name}"), name.as_bytes()).unwrap();
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Link);
        link.set_size(0);
        archive.append_link(&mut link, "_data/hard", format!("_data/{}", names[0])).unwrap();
        link.set_entry_type(tar::EntryType::Symlink);
        archive.append_link(&mut link, "_data/soft", "_data/elsewhere").unwrap();
        archive.append_pax_extensions([("path", &b"_data/of a record"[..]), ("mtime", b"1.5")]).unwrap();
        let mut plain = tar::Header::new_ustar();
        plain.set_size(3);
        archive.append_data(&mut plain, "_data/cut", &b"abc"[..]).unwrap();
        archive.into_inner().unwrap()
    }

    #[test]
    fn names_move_and_all_else_stays_however_the_bytes_are_cut() {
        let names =
            ["a".to_owned(), "d/e".to_owned(), "n".repeat(250), format!("{}/{}", "p".repeat(90), "q".repeat(90))];
        for chunk in [1, 511, 512, 513, 1 << 20] {
            let mut rebase = Rebase::out_of("_data");
            let moved: Vec<u8> = archive(&names).chunks(chunk).flat_map(|bytes| rebase.pass(bytes).unwrap()).collect();
            let mut check = ArchiveCheck::default();
            check.pass(&moved).unwrap();
            check.finish().unwrap();
            assert_eq!(check.root().map(|root| (root.mode, root.uid)), Some((0o1770, 77)));
            let mut moved = tar::Archive::new(&moved[..]);
            let mut seen = Vec::new();
            for entry in moved.entries().unwrap() {
                let mut entry = entry.unwrap();
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                seen.push((text(&entry.path_bytes()), entry.link_name_bytes().map(|link| text(&link)), content));
            }
            let file = |name: &String| (format!("./{name}"), None, name.clone());
            let mut expected = vec![("./".to_owned(), None, String::new())];
            expected.extend(names.iter().map(file));
            expected.push(("./hard".to_owned(), Some("./a".to_owned()), String::new()));
            expected.push(("./soft".to_owned(), Some("_data/elsewhere".to_owned()), String::new()));
            expected.push(("./of a record".to_owned(), None, "abc".to_owned()));
            assert_eq!(seen, expected, "in chunks of {chunk}");
        }
    }

    #[test]
    fn an_entry_outside_of_the_folder_and_a_header_that_is_none_are_refused() {
        for name in ["_datax/a", "other", "_dat"] {
            let archive = super::super::archive_of(name, b"x").unwrap();
            assert!(Rebase::out_of("_data").pass(&archive).is_err(), "{name}");
        }
        assert!(Rebase::out_of("_data").pass(&[b'x'; 1024]).is_err());
    }
}
