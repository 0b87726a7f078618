//! [`ArchiveCheck`]: whether bytes that pass are one whole tar archive.

mod rebase;

use std::fmt;

pub use self::rebase::Rebase;

/// Bytes of a block: a header is one, and contents are filled up to a multiple of it.
const BLOCK: usize = 512;

/// Bytes of the records that precede an entry that are read for its size.
const RECORDS: usize = 1024 * 1024;

/// Checks a tar archive as its bytes pass, and keeps none of them: each header by its checksum, each content by its length, the end by
/// its mark. An archive that breaks off, and one with something behind its end, as an error in the daemon's words, are found.
///
/// ```
/// use runtide_engine::{ArchiveCheck, ArchiveFlaw};
///
/// let mut check = ArchiveCheck::default();
/// check.pass(&[0; 1024])?;
/// check.finish()?; // an archive without an entry
/// assert!(ArchiveCheck::default().pass(b"\x1f\x8b\x08\0").is_err(), "it is compressed");
/// # Ok::<(), ArchiveFlaw>(())
/// ```
#[derive(Debug, Default)]
pub struct ArchiveCheck {
    at: At,
    has_begun: bool,
    /// The block that is under way.
    block: Vec<u8>,
    /// Records that precede the next entry's header.
    records: Vec<u8>,
    /// A name that precedes it.
    long_name: Vec<u8>,
    root: Option<Folder>,
    leads_out: bool,
}

/// A folder of an archive, without its name: mode, owner by numbers, and time of its last change in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folder {
    /// Permissions, with the bits for set-id and sticky.
    pub mode: u32,
    /// The user.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// Time of the last change.
    pub modified: u64,
}

impl Folder {
    /// A whole archive of this folder alone, under a name of at most 99 bytes.
    pub fn archive(&self, name: &str) -> Vec<u8> {
        let mut block = [0; BLOCK];
        let mut put = |from: usize, bytes: &[u8]| {
            let length = bytes.len().min(BLOCK - from);
            block.iter_mut().skip(from).zip(bytes.iter().take(length)).for_each(|(to, byte)| *to = *byte);
        };
        put(0, name.as_bytes().get(..99).unwrap_or(name.as_bytes()));
        put(100, &field(self.mode.into(), 8));
        put(108, &field(self.uid, 8));
        put(116, &field(self.gid, 8));
        put(124, &field(0, 12));
        put(136, &field(self.modified, 12));
        put(148, b"        5");
        put(257, b"ustar\x0000");
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        let sum = format!("{sum:06o}\0 ");
        block.iter_mut().skip(148).zip(sum.bytes()).for_each(|(to, byte)| *to = byte);
        let mut archive = block.to_vec();
        archive.resize(3 * BLOCK, 0);
        archive
    }
}

/// A number in octal, or in binary where it is too large for that.
fn field(number: u64, width: usize) -> Vec<u8> {
    let octal = format!("{number:0digits$o}\0", digits = width - 1);
    if octal.len() <= width {
        return octal.into_bytes();
    }
    let mut binary = vec![0; width.saturating_sub(8)];
    binary.extend(number.to_be_bytes());
    if let Some(first) = binary.first_mut() {
        *first |= 0x80;
    }
    binary
}

#[derive(Debug, Default)]
enum At {
    /// In a header.
    #[default]
    Header,
    /// In the map of a sparse file, which goes on in another block.
    Map {
        /// Bytes of the content behind it.
        content: u64,
    },
    /// In a content; of one that is about the next entry, these bytes came so far.
    Content { left: u64, kept: Option<(About, Vec<u8>)> },
    /// Behind the mark of the end.
    End,
}

/// The name that a content gives the next entry.
#[derive(Clone, Copy, Debug)]
enum About {
    Records,
    Name,
}

/// Why bytes are no whole tar archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveFlaw {
    /// They are no tar archive at all, or a corrupt one.
    NotAnArchive(&'static str),
    /// They end before the archive does.
    BreaksOff,
    /// Something follows the archive.
    Trailing,
}

impl fmt::Display for ArchiveFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnArchive(why) => write!(f, "this is not a tar archive: {why}"),
            Self::BreaksOff => f.write_str("the archive breaks off before its end"),
            Self::Trailing => f.write_str("something follows the end of the archive"),
        }
    }
}

impl std::error::Error for ArchiveFlaw {}

impl ArchiveCheck {
    /// Checks the next bytes.
    ///
    /// # Errors
    /// The flaw; nothing that comes later is of use then.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveFlaw> {
        self.is_plain(bytes)?;
        self.has_begun = true;
        while !bytes.is_empty() {
            bytes = match &mut self.at {
                At::End => {
                    return if bytes.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(ArchiveFlaw::Trailing) };
                }
                At::Content { left, kept } => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let (content, rest) = bytes.split_at(length);
                    if let Some((_, kept)) = kept {
                        let room = RECORDS.saturating_sub(kept.len()).min(content.len());
                        kept.extend_from_slice(content.get(..room).unwrap_or_default());
                    }
                    *left -= length as u64;
                    if *left == 0 {
                        match kept.take() {
                            Some((About::Records, records)) => self.records = records,
                            Some((About::Name, name)) => self.long_name = name,
                            None => {}
                        }
                        self.at = At::Header;
                    }
                    rest
                }
                At::Header | At::Map { .. } => {
                    let (part, rest) = bytes.split_at((BLOCK - self.block.len()).min(bytes.len()));
                    self.block.extend_from_slice(part);
                    if self.block.len() == BLOCK {
                        self.at = self.after_block()?;
                        self.block.clear();
                    }
                    rest
                }
            };
        }
        Ok(())
    }

    /// Checks that the archive is whole.
    ///
    /// # Errors
    /// `BreaksOff` if the mark of its end has not come.
    pub fn finish(&self) -> Result<(), ArchiveFlaw> {
        if matches!(self.at, At::End) { Ok(()) } else { Err(ArchiveFlaw::BreaksOff) }
    }

    /// The folder that the archive is the content of (`.`), if it was among the entries so far.
    pub fn root(&self) -> Option<Folder> {
        self.root
    }

    /// `true` if the name of an entry so far leads out of the folder into which the archive is unpacked.
    pub fn leads_out(&self) -> bool {
        self.leads_out
    }

    /// Names the usual mistake.
    fn is_plain(&self, bytes: &[u8]) -> Result<(), ArchiveFlaw> {
        const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"];
        let is_first = matches!(self.at, At::Header) && self.block.is_empty() && !self.has_begun;
        if is_first && COMPRESSED.iter().any(|magic| bytes.starts_with(magic)) {
            return Err(ArchiveFlaw::NotAnArchive("it is compressed, and must be unpacked first"));
        }
        Ok(())
    }

    /// The place behind a whole header or map.
    fn after_block(&mut self) -> Result<At, ArchiveFlaw> {
        const DAMAGED: ArchiveFlaw = ArchiveFlaw::NotAnArchive("a header's checksum is wrong");
        let block = self.block.as_slice();
        if let At::Map { content } = self.at {
            let goes_on = block.get(504).is_some_and(|flag| *flag != 0);
            return Ok(if goes_on { At::Map { content } } else { content_of(content, None) });
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(At::End);
        }
        let sum: u64 =
            (0..).zip(block).map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
        if number(block.get(148..156)) != Some(sum) {
            return Err(DAMAGED);
        }
        let kind = block.get(156).copied().unwrap_or_default();
        // Links, devices, folders and pipes have no content, whatever their size says.
        let size = match kind {
            b'1'..=b'6' => Some(0),
            _ => record(&self.records, b"size").or_else(|| number(block.get(124..136))),
        };
        let size = size.ok_or(ArchiveFlaw::NotAnArchive("a size is no number"))?;
        let padded = size.checked_next_multiple_of(BLOCK as u64);
        let padded = padded.ok_or(ArchiveFlaw::NotAnArchive("a size is larger than any file"))?;
        // Records and long names precede the header that they are about.
        if !matches!(kind, b'x' | b'g' | b'L' | b'K') {
            let records = std::mem::take(&mut self.records);
            let long_name = std::mem::take(&mut self.long_name);
            let name = block.get(..100).and_then(text);
            // Readers differ in which of them counts.
            let names = [value_of(&records, b"path"), text(&long_name), name];
            self.leads_out |= names.into_iter().flatten().any(leads_out);
            if block.get(257..263) == Some(b"ustar\0")
                && let (Some(prefix), Some(name)) = (block.get(345..500).and_then(text), name)
            {
                self.leads_out |= leads_out(&[prefix, b"/", name].concat());
            }
            if kind == b'5' && matches!(name, Some(b"." | b"./")) {
                let of = |key: &[u8], from, to| record(&records, key).or_else(|| number(block.get(from..to)));
                let mode = number(block.get(100..108)).and_then(|mode| u32::try_from(mode & 0o7777).ok());
                let parts = (mode, of(b"uid", 108, 116), of(b"gid", 116, 124), of(b"mtime", 136, 148));
                if let (Some(mode), Some(uid), Some(gid), Some(modified)) = parts {
                    self.root = Some(Folder { mode, uid, gid, modified });
                }
            }
        }
        let about = match kind {
            b'x' => Some(About::Records),
            b'L' => Some(About::Name),
            _ => None,
        };
        let has_map = kind == b'S' && block.get(482).is_some_and(|flag| *flag != 0);
        Ok(if has_map { At::Map { content: padded } } else { content_of(padded, about) })
    }
}

/// The bytes before the first zero.
fn text(field: &[u8]) -> Option<&[u8]> {
    field.split(|byte| *byte == 0).next()
}

fn content_of(left: u64, about: Option<About>) -> At {
    match left {
        0 => At::Header,
        left => At::Content { left, kept: about.map(|about| (about, Vec::new())) },
    }
}

/// A number of a header: in octal, or in binary where the first bit is set.
fn number(field: Option<&[u8]>) -> Option<u64> {
    let field = field?;
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        let digits = std::iter::once(&(first & 0x7f)).chain(rest).copied().collect::<Vec<u8>>();
        return digits.iter().try_fold(0_u64, |value, digit| value.checked_mul(256)?.checked_add(u64::from(*digit)));
    }
    let digits = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if digits.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(digits, 8).ok()
}

/// A whole number among the records of an entry. The last one counts.
fn record(records: &[u8], key: &[u8]) -> Option<u64> {
    // A time may have a fraction.
    let whole = value_of(records, key)?.split(|byte| *byte == b'.').next()?;
    std::str::from_utf8(whole).ok()?.parse().ok()
}

/// The last value of a key among the records of an entry.
fn value_of<'a>(records: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    pairs(records).filter(|(found, _)| *found == key).last().map(|(_, value)| value)
}

/// Keys and values of the records of an entry, each as `<length> <key>=<value>\n`, up to the first that is none.
fn pairs(records: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut left = records;
    std::iter::from_fn(move || {
        let space = left.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(left.get(..space)?).ok()?.parse().ok()?;
        let pair = left.get(space.checked_add(1)?..length.checked_sub(1)?)?;
        left = left.get(length..)?;
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        Some((pair.get(..equals)?, pair.get(equals.checked_add(1)?..)?))
    })
}

/// `true` if the path has more steps up than down at any point.
fn leads_out(path: &[u8]) -> bool {
    let mut depth = 0_u32;
    path.split(|byte| *byte == b'/').any(|part| {
        match part {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return true,
            },
            _ => depth = depth.saturating_add(1),
        }
        false
    })
}

/// An archive of one file, as a build takes its only file.
///
/// # Errors
/// A name that is longer than 100 bytes.
pub fn archive_of(name: &str, content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, name, content)?;
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: u8, size: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..4].copy_from_slice(b"name");
        block[124..124 + size.len()].copy_from_slice(size);
        block[148..156].copy_from_slice(b"        ");
        block[156] = kind;
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// An entry with a prefix that leads out.
    fn prefixed(magic: &[u8]) -> Vec<u8> {
        let mut block = header(b'0', b"0\0");
        block[257..265].copy_from_slice(magic);
        block[345..350].copy_from_slice(b"../..");
        block[148..156].copy_from_slice(b"        ");
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn entry(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut entry = header(kind, format!("{:011o}\0", content.len()).as_bytes());
        entry.extend_from_slice(content);
        entry.resize(entry.len().next_multiple_of(BLOCK), 0);
        entry
    }

    fn end() -> Vec<u8> {
        vec![0; 2 * BLOCK]
    }

    fn check(archive: &[u8], chunk: usize) -> Result<(), ArchiveFlaw> {
        let mut check = ArchiveCheck::default();
        archive.chunks(chunk).try_for_each(|bytes| check.pass(bytes))?;
        check.finish()
    }

    fn archives() -> Vec<Vec<u8>> {
        let records = b"12 size=600\n".as_slice();
        let mut huge = header(b'0', &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        huge.extend(vec![b'z'; 512]);
        let mut sparse = header(b'S', b"00000001000\0");
        sparse[482] = 1;
        sparse[148..156].copy_from_slice(b"        ");
        let sum: u64 = sparse.iter().map(|byte| u64::from(*byte)).sum();
        sparse[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut map = vec![7; BLOCK];
        map[504] = 0;
        sparse.extend(map);
        sparse.extend(vec![b's'; 512]);
        let mut sized = header(b'0', b"00000000000\0");
        sized.extend(vec![b'p'; 1024]);
        vec![
            end(),
            [entry(b'0', b"one"), entry(b'5', b""), entry(b'0', &[7; 1024]), end()].concat(),
            // A hard link's size is that of its target, and no content follows.
            [header(b'1', b"00000001000\0"), entry(b'0', b"x"), end()].concat(),
            [entry(b'x', records), sized, entry(b'0', b"y"), end()].concat(),
            [entry(b'L', &[b'l'; 300]), entry(b'0', b"long"), end(), vec![0; 8 * 1024]].concat(),
            [huge, end()].concat(),
            [sparse, entry(b'0', b"z"), end()].concat(),
        ]
    }

    #[test]
    fn a_whole_archive_passes_however_it_is_cut() {
        for (n, archive) in archives().iter().enumerate() {
            for chunk in [1, 7, 511, 512, 513, 1 << 20] {
                assert_eq!(check(archive, chunk), Ok(()), "archive {n} in chunks of {chunk}");
            }
        }
    }

    #[test]
    fn an_archive_that_breaks_off_anywhere_is_found() {
        for archive in archives() {
            let end = archive.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(BLOCK));
            for cut in (0..end + BLOCK).step_by(61) {
                assert_eq!(check(&archive[..cut], 512), Err(ArchiveFlaw::BreaksOff), "{cut} of {}", archive.len());
            }
        }
    }

    #[test]
    fn words_behind_the_end_are_found() {
        let mut archive = [entry(b'0', b"one"), end()].concat();
        archive.extend_from_slice(br#"{"message":"the disk is gone"}"#);
        assert_eq!(check(&archive, 512), Err(ArchiveFlaw::Trailing));
        let instead = [entry(b'0', b"one"), br#"{"message":"the disk is gone"}"#.to_vec()].concat();
        assert_eq!(check(&instead, 512), Err(ArchiveFlaw::BreaksOff));
    }

    #[test]
    fn a_name_that_leads_out_is_found() {
        for path in ["..", "../a", "a/../../b", "./../x", "/.."] {
            assert!(leads_out(path.as_bytes()), "{path}");
        }
        for path in ["", ".", "./", "a/..", "a/../b", "..a", "/a"] {
            assert!(!leads_out(path.as_bytes()), "{path}");
        }
        let mut check = ArchiveCheck::default();
        check.pass(&[entry(b'x', b"13 path=../a\n"), entry(b'0', b"x"), end()].concat()).unwrap();
        assert!(check.leads_out());
        let mut check = ArchiveCheck::default();
        check.pass(&[entry(b'L', b"../../x\0"), entry(b'0', b"x"), end()].concat()).unwrap();
        assert!(check.leads_out(), "a long name");
        for (magic, found) in [(b"ustar\x0000", true), (b"ustar  \0", false)] {
            let mut check = ArchiveCheck::default();
            check.pass(&[prefixed(magic), end()].concat()).unwrap();
            assert_eq!(check.leads_out(), found, "{}", magic.escape_ascii());
        }
        let mut check = ArchiveCheck::default();
        check.pass(&archive_of("Dockerfile", b"FROM scratch\n").unwrap()).unwrap();
        check.finish().unwrap();
        assert!(!check.leads_out());
    }

    #[test]
    fn bytes_that_are_no_archive_are_refused() {
        for bytes in [&b"\x1f\x8b\x08\0 and so on"[..], &[b'x'; 2048], &[0xff; 512], b"BZh91AY"] {
            let flaw = check(bytes, 4096).unwrap_err();
            assert!(matches!(flaw, ArchiveFlaw::NotAnArchive(_)), "{flaw}");
        }
        assert_eq!(check(b"", 1), Err(ArchiveFlaw::BreaksOff));
        let endless = [header(b'0', &[0xff; 12]), end()].concat();
        assert!(matches!(check(&endless, 512), Err(ArchiveFlaw::NotAnArchive(_))));
    }

    #[test]
    fn the_folder_itself_is_found_and_written() {
        for folder in [
            Folder { mode: 0o1770, uid: 77, gid: 88, modified: 981_173_106 },
            Folder { mode: 0o755, uid: 4_000_000_000, gid: u64::from(u32::MAX), modified: 0 },
        ] {
            let archive = folder.archive("./");
            let mut seen = ArchiveCheck::default();
            seen.pass(&archive).unwrap();
            seen.finish().unwrap();
            assert_eq!(seen.root(), Some(folder));
        }
        let records = b"17 uid=3000000000\n22 mtime=981173106.5\n".as_slice();
        let folder = Folder { mode: 0o700, uid: 1, gid: 2, modified: 3 }.archive(".");
        let mut seen = ArchiveCheck::default();
        seen.pass(&[entry(b'x', b"18 uid=3000000000\n"), folder.clone()].concat()).unwrap();
        assert_eq!(seen.root().map(|folder| folder.uid), Some(3_000_000_000));
        let mut other = ArchiveCheck::default();
        other
            .pass(&[entry(b'x', records), Folder { mode: 0, uid: 1, gid: 1, modified: 1 }.archive("other")].concat())
            .unwrap();
        assert_eq!(other.root(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048), chunk in 1_usize..700) {
            let _ = check(&bytes, chunk);
            let _ = check(&[entry(b'x', &bytes), entry(b'0', &bytes), end()].concat(), chunk);
        }
    }
}
