//! Scanning a segment: checks whether a commit is whole, and searches for the next valid commit or frame.

use std::io;

use super::{
    chain::Chain,
    format::{COMMIT_HEADER, COMMIT_MAGIC, CommitHeader, FRAME_HEADER, Frame, HASHED_FROM, LogId},
    window::Window,
};

/// Checks that the frames, one behind the other, are the records from `first` on, and nothing else. The error is the offset of
/// the first bad frame from the start of `frames`, and the number of frames before it.
pub(super) fn check_frames(frames: &[u8], first: u64, count: u32) -> Result<(), (usize, u32)> {
    let mut rest = frames;
    for number in 0..count {
        let bad = (frames.len() - rest.len(), number);
        let frame = Frame::decode(rest).filter(|frame| frame.seq == first.wrapping_add(u64::from(number)));
        let Some(frame) = frame.filter(|frame| frame.holds(rest)) else { return Err(bad) };
        rest = usize::try_from(frame.size()).ok().and_then(|size| rest.get(size..)).ok_or(bad)?;
    }
    if rest.is_empty() { Ok(()) } else { Err((frames.len() - rest.len(), count)) }
}

/// The result of checking a whole commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    Yes,
    /// The frame at this offset is not the record that should be there.
    Frame {
        at: u64,
        seq: u64,
    },
    /// Every record is there, but the hash is wrong.
    Hash,
}

/// Checks all frames of a commit, and its hash if a chain is given. The caller has checked that it lies within the file.
pub(super) fn check_commit(
    window: &mut Window<'_>,
    at: u64,
    header: &CommitHeader,
    chain: Option<&Chain>,
) -> io::Result<Whole> {
    let size = usize::try_from(header.size()).unwrap_or(usize::MAX);
    if size > window.step() {
        return check_large(window, at, header, chain);
    }
    let Some(commit) = window.get(at, size)? else { return Ok(Whole::Frame { at, seq: header.first }) };
    let frames = commit.get(COMMIT_HEADER..).unwrap_or_default();
    if let Err((offset, number)) = check_frames(frames, header.first, header.count) {
        let at = at + (COMMIT_HEADER + offset) as u64;
        return Ok(Whole::Frame { at, seq: header.first.saturating_add(u64::from(number)) });
    }
    let hashed = commit.get(HASHED_FROM..).unwrap_or_default();
    Ok(if chain.is_none_or(|chain| chain.hash(hashed) == header.hash) { Whole::Yes } else { Whole::Hash })
}

/// [`check_commit`] for a commit that does not fit into the window: piece by piece.
fn check_large(window: &mut Window<'_>, at: u64, header: &CommitHeader, chain: Option<&Chain>) -> io::Result<Whole> {
    let end = at + header.size();
    let mut offset = at + COMMIT_HEADER as u64;
    for number in 0..header.count {
        let seq = header.first.saturating_add(u64::from(number));
        let bad = Ok(Whole::Frame { at: offset, seq });
        let frame = window.get(offset, FRAME_HEADER)?.and_then(Frame::decode).filter(|frame| frame.seq == seq);
        let Some(frame) = frame.filter(|frame| offset + frame.size() <= end) else { return bad };
        let (mut from, to) = (offset + frame.covered().start, offset + frame.covered().end);
        let mut crc = frame.seed();
        while from < to {
            let piece = window.piece(from, to)?;
            if piece.is_empty() {
                return bad;
            }
            crc = crc32c::crc32c_append(crc, piece);
            from += piece.len() as u64;
        }
        if crc != frame.crc {
            return bad;
        }
        offset += frame.size();
    }
    if offset != end {
        return Ok(Whole::Frame { at: offset, seq: header.last().saturating_add(1) });
    }
    let Some(chain) = chain else { return Ok(Whole::Yes) };
    let mut hasher = chain.hasher();
    let mut from = at + HASHED_FROM as u64;
    while from < end {
        let piece = window.piece(from, end)?;
        if piece.is_empty() {
            return Ok(Whole::Hash);
        }
        hasher.update(piece);
        from += piece.len() as u64;
    }
    Ok(if hasher.finalize() == header.hash { Whole::Yes } else { Whole::Hash })
}

/// The first whole commit from `from` to `limit` that is accepted.
pub(super) fn find_commit(
    window: &mut Window<'_>,
    from: u64,
    limit: u64,
    log: &LogId,
    accept: impl Fn(&CommitHeader) -> bool,
) -> io::Result<Option<(u64, CommitHeader)>> {
    find_whole(window, from, limit, |bytes, at| CommitHeader::decode(bytes, log, at).filter(&accept))
}

/// An id with which the first whole commit that begins at record `first` or later is one of this log, whose own id is lost.
pub(super) fn find_id(window: &mut Window<'_>, from: u64, first: u64) -> io::Result<Option<LogId>> {
    let decode = |bytes: &[u8], at| {
        let header = CommitHeader::decode(bytes, &CommitHeader::id_of(bytes, at)?, at);
        header.filter(|header| header.first >= first)
    };
    let Some((at, _)) = find_whole(window, from, window.size(), decode)? else { return Ok(None) };
    Ok(window.get(at, COMMIT_HEADER)?.and_then(|bytes| CommitHeader::id_of(bytes, at)))
}

/// The first whole commit from `from` to `limit` whose header `decode` returns, by its bytes and its offset.
fn find_whole(
    window: &mut Window<'_>,
    from: u64,
    limit: u64,
    decode: impl Fn(&[u8], u64) -> Option<CommitHeader>,
) -> io::Result<Option<(u64, CommitHeader)>> {
    let limit = limit.min(window.size());
    let mut at = from.next_multiple_of(8);
    // True if the window begins here, so that reading again is of no use.
    let mut realigned = false;
    while at + COMMIT_HEADER as u64 <= limit {
        let piece = window.piece(at, limit)?;
        let words = piece.chunks_exact(8);
        let len = piece.len() & !7;
        let Some(found) = words.into_iter().position(|word| word.starts_with(&COMMIT_MAGIC)) else {
            if len == 0 {
                if std::mem::replace(&mut realigned, true) {
                    // No bytes are left here: the file has become shorter.
                    return Ok(None);
                }
                // The window ends within a word: let it begin here.
                window.forget();
                continue;
            }
            realigned = false;
            at += len as u64;
            continue;
        };
        at += (found * 8) as u64;
        let header = window.get(at, COMMIT_HEADER)?.and_then(|bytes| decode(bytes, at));
        // A commit may end in zeros, which `limit` does not count: so it may end behind `limit`.
        if let Some(header) = header.filter(|header| at + header.size() <= window.size())
            && check_commit(window, at, &header, None)? == Whole::Yes
        {
            return Ok(Some((at, header)));
        }
        at += 8;
    }
    Ok(None)
}

/// The first valid frame from `from` to `limit` whose number is within `seqs`, at any alignment: bytes may be missing before it.
pub(super) fn find_frame(
    window: &mut Window<'_>,
    from: u64,
    limit: u64,
    seqs: std::ops::RangeInclusive<u64>,
) -> io::Result<Option<(u64, Frame)>> {
    let limit = limit.min(window.size());
    let mut at = from;
    while at + FRAME_HEADER as u64 <= limit {
        let piece = window.piece(at, limit)?;
        let found = piece.windows(FRAME_HEADER).position(|bytes| {
            Frame::decode(bytes)
                .is_some_and(|frame| seqs.contains(&frame.seq) && frame.length as usize <= super::format::MAX_RECORD)
        });
        let Some(found) = found else {
            let len = piece.len() as u64;
            if at + len >= limit || piece.is_empty() {
                return Ok(None);
            }
            // A header may lie across the window's end.
            at += len.saturating_sub(FRAME_HEADER as u64 - 1).max(1);
            window.forget();
            continue;
        };
        at += found as u64;
        let frame = window.get(at, FRAME_HEADER)?.and_then(Frame::decode);
        if let Some(frame) = frame.filter(|frame| at + frame.size() <= limit)
            && frame_holds(window, at, &frame)?
        {
            return Ok(Some((at, frame)));
        }
        at += 1;
    }
    Ok(None)
}

/// Returns true if the checksum of the frame at this offset holds; a frame of any size.
fn frame_holds(window: &mut Window<'_>, at: u64, frame: &Frame) -> io::Result<bool> {
    let (mut from, to) = (at + frame.covered().start, at + frame.covered().end);
    let mut crc = frame.seed();
    while from < to {
        let piece = window.piece(from, to)?;
        if piece.is_empty() {
            return Ok(false);
        }
        crc = crc32c::crc32c_append(crc, piece);
        from += piece.len() as u64;
    }
    Ok(crc == frame.crc)
}

/// The offset behind the last byte from `from` to `limit` that is not zero; `from` if all are.
pub(super) fn end_of_bytes(window: &mut Window<'_>, from: u64, limit: u64) -> io::Result<u64> {
    let limit = limit.min(window.size());
    let (mut at, mut end) = (from, from);
    while at < limit {
        let piece = window.piece(at, limit)?;
        if piece.is_empty() {
            break;
        }
        if let Some(last) = last_set(piece) {
            end = at + last as u64 + 1;
        }
        at += piece.len() as u64;
    }
    Ok(end)
}

/// The index of the last byte that is not zero; goes block by block, since most blocks are all zeros.
fn last_set(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 512;
    let block = bytes.chunks(BLOCK).rposition(|block| block.iter().fold(0, |all, byte| all | byte) != 0)?;
    let within = bytes.get(block * BLOCK..)?.chunks(BLOCK).next()?.iter().rposition(|byte| *byte != 0)?;
    Some(block * BLOCK + within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::fs::{Disk, OsDisk};

    #[test]
    fn a_file_that_becomes_shorter_ends_the_search() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk.create(&dir.path().join("file")).unwrap();
        file.allocate(1 << 20).unwrap();
        let log = [0; 16];
        for left in [0, 5, 4096, 70_003] {
            let mut window = Window::new(&*file, 1 << 20, 4096);
            file.truncate(left).unwrap();
            assert_eq!(find_commit(&mut window, 0, 1 << 20, &log, |_| true).unwrap(), None);
            assert_eq!(find_frame(&mut window, 0, 1 << 20, 1..=9).unwrap(), None);
            assert_eq!(end_of_bytes(&mut window, 0, 1 << 20).unwrap(), 0);
        }
    }
}
